"""How a case of `benchmarks.flat` is judged."""

import json

import pytest

from benchmarks.flat.report import Comparison, Round


def comparison(*burdened_per_s: float) -> Comparison:
    rounds = [one_round(each, burdened=False, cpu_us=50, wal_bytes=1400) for each in (90, 100, 400)]
    rounds += [one_round(each, burdened=True, cpu_us=60, wal_bytes=1500) for each in burdened_per_s]
    return Comparison(case="held", rounds=rounds, at_least=0.9, about={"minutes": 1})


def one_round(jobs_per_s: float, *, burdened: bool, cpu_us: float, wal_bytes: float) -> Round:
    return Round(burdened=burdened, jobs=10, jobs_per_s=jobs_per_s, cpu_us={"server": cpu_us}, wal_bytes=wal_bytes)


@pytest.mark.parametrize(("per_s", "ratio", "holds"), [((95, 80, 99), 0.95, True), ((20, 80, 99), 0.8, False)])
def test_medians_are_compared(per_s: tuple[float, ...], ratio: float, holds: bool) -> None:
    found = comparison(*per_s)

    assert (found.ratio, found.holds) == (ratio, holds)
    assert ("DOES NOT HOLD" in found.line()) is not holds


def test_the_document_has_the_figures_and_what_they_are_made_of() -> None:
    document = json.loads(json.dumps(comparison(95).document()))

    assert (document["base_per_s"], document["burdened_per_s"], document["ratio"]) == (100, 95, 0.95)
    assert (document["base_cpu_us"], document["burdened_cpu_us"]) == ({"server": 50}, {"server": 60})
    assert (document["base_wal_bytes"], document["burdened_wal_bytes"]) == (1400, 1500)
    assert [each["burdened"] for each in document["rounds"]] == [False, False, False, True]
    assert document["about"] == {"minutes": 1}
