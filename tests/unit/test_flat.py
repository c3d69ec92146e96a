"""How a case of `benchmarks.flat` is judged."""

import json

import pytest

from benchmarks.flat.report import Comparison, Round


def comparison(*burdened_per_s: float) -> Comparison:
    rounds = [Round(burdened=False, jobs=10, jobs_per_s=each, cpu_us={"server": 50}) for each in (90, 100, 400)]
    rounds += [Round(burdened=True, jobs=10, jobs_per_s=each, cpu_us={"server": 60}) for each in burdened_per_s]
    return Comparison(case="held", rounds=rounds, at_least=0.9, about={"minutes": 1})


@pytest.mark.parametrize(("per_s", "ratio", "holds"), [((95, 80, 99), 0.95, True), ((20, 80, 99), 0.8, False)])
def test_medians_are_compared(per_s: tuple[float, ...], ratio: float, holds: bool) -> None:
    found = comparison(*per_s)

    assert (found.ratio, found.holds) == (ratio, holds)
    assert ("DOES NOT HOLD" in found.line()) is not holds


def test_the_document_has_the_figures_and_what_they_are_made_of() -> None:
    document = json.loads(json.dumps(comparison(95).document()))

    assert (document["base_per_s"], document["burdened_per_s"], document["ratio"]) == (100, 95, 0.95)
    assert (document["base_cpu_us"], document["burdened_cpu_us"]) == ({"server": 50}, {"server": 60})
    assert [each["burdened"] for each in document["rounds"]] == [False, False, False, True]
    assert document["about"] == {"minutes": 1}
