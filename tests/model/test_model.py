"""The protocol holds in every order of events within the bounds, and no broken variant of it does."""

import itertools
from functools import cache

import pytest

from orqestra.model.lifecycle import State
from orqestra.model.report import AttemptRef, Reason, Report, Verdict
from orqestra.store import settling
from tests.model import guards
from tests.model.bounds import SHALLOW, of_flaw
from tests.model.flaws import BREAKS, Flaw
from tests.model.guards import Rules
from tests.model.search import explore
from tests.model.words import Attempt, Invariant, Job, Phase, Place

# What a search has to visit at least: a model in which hardly anything can happen would hold as well.
STATES_MIN = 500
# The rare turns among those that some order of events must have taken.
RARE = {
    "server {server} refuses an old Hello of worker {worker}",
    "server {server} is refused its claim for worker {worker}",
    "server {server} commits a claim for worker {worker}, which is not told",
    "server {server} gives worker {worker} no answer yet",
    "server {server} answers worker {worker}: stale",
    "server {server} answers worker {worker}: duplicate",
    "server {server} finds nothing left to sweep of worker {worker}",
    "server {server} sweeps the orphan of worker {worker}: lost",
    "server {server} sweeps the orphan of worker {worker}: returned",
    "server {server} dies, and is started again",
    "the host of worker {worker} is lost",
    "what came late to server {server} is lost",
}

# The searches of the protocol itself serve two tests.
searched = cache(explore)


@pytest.mark.parametrize("rules", SHALLOW.values(), ids=SHALLOW)
def test_the_protocol_holds_in_every_order_of_events(rules: Rules) -> None:
    found = searched(rules)

    assert found.failure is None, str(found.failure)
    assert found.states > STATES_MIN


def test_the_searches_come_by_everything_that_is_rare() -> None:
    texts = {text for rules in SHALLOW.values() for text in searched(rules).texts}

    assert set() == RARE - texts


@pytest.mark.parametrize("flaw", [flaw for flaw, broken in BREAKS.items() if broken])
def test_a_broken_variant_is_rejected_with_a_counterexample(flaw: Flaw) -> None:
    found = explore(of_flaw(flaw), BREAKS[flaw])

    assert found.failure is not None
    assert found.failure.invariant is BREAKS[flaw]
    assert 0 < len(found.failure.lines) <= found.depth + 1


@pytest.mark.parametrize("flaw", [flaw for flaw, broken in BREAKS.items() if not broken])
def test_a_second_line_of_defence_is_not_needed_within_the_bounds(flaw: Flaw) -> None:
    assert explore(of_flaw(flaw)).failure is None


def test_every_flaw_says_what_it_breaks() -> None:
    assert set(BREAKS) == set(Flaw)
    assert {Invariant.ONE_END, Invariant.CURRENT, Invariant.ALONE, Invariant.ENDING} <= set(BREAKS.values())


def test_the_counterexample_of_an_attempt_as_fence_is_the_retry_by_an_operator() -> None:
    found = explore(of_flaw(Flaw.ATTEMPT_AS_FENCE), BREAKS[Flaw.ATTEMPT_AS_FENCE])

    assert "an operator retries the job" in str(found.failure)


# A row, and a report of it, differ in the attempt, in the session, in both or in nothing.
ROWS = list(itertools.product(State, (1, 2), (1, 2), (1, 2)))


@pytest.mark.parametrize(("state", "fence", "token", "session"), ROWS)
def test_the_guards_of_the_model_are_those_of_the_product(state: State, fence: int, token: int, session: int) -> None:
    attempt, place = Attempt(0, 1, fence, token), Place(0, session)
    job = Job(state, Attempt(0, 1, 1, 1), Place(0, 1), 0, False)
    row = {"state": state, "fence": 1, "token": 1, "session_id": 1}
    report = Report(
        attempt=AttemptRef(0, fence, token),
        session_id=session,
        ending=guards.ENDINGS[Phase.SUCCEEDED],
        reason=Reason.EXITED,
    )

    is_current = settling._is_current(report, row)  # type: ignore[arg-type]  # a row is read by its keys only
    expected = Verdict.ACCEPTED if is_current else settling._verdict(report, row, None)  # type: ignore[arg-type]  # the same

    assert guards.is_current(job, attempt, place, Rules()) == is_current
    assert guards.verdict(job, attempt, place, Rules()) is expected
