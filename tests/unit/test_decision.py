"""What the end of an attempt does to its job, as a function of values."""

from dataclasses import replace
from itertools import product

import pytest

from orqestra.model import limits
from orqestra.model.decision import Backoff, Budget, Ending, Outcome, decide
from orqestra.model.lifecycle import TERMINAL, State
from orqestra.model.retry_rules import Failure, Jitter, RetryRules

FRESH = Budget(attempt=0, max_retries=2, lost=0, returned=0, cancel_requested=False, backoff=(1000, 2.0, 60_000))


def backoff(attempt: int) -> Backoff:
    return Backoff(attempt=attempt, base_ms=1000, factor=2.0, cap_ms=60_000)


def test_a_success_completes_and_counts() -> None:
    decision = decide(replace(FRESH, attempt=1, returned=3, lost=2), Ending.SUCCEEDED)

    assert (decision.state, decision.outcome, decision.delay) == (State.COMPLETED, Outcome.COMPLETED, None)
    assert (decision.attempt, decision.lost, decision.returned) == (2, 2, 0)


@pytest.mark.parametrize("attempt", [0, 1])
def test_a_failure_with_retries_left_waits_for_the_backoff_of_its_number(attempt: int) -> None:
    decision = decide(replace(FRESH, attempt=attempt), Ending.FAILED)

    assert (decision.state, decision.outcome) == (State.RETRYING, Outcome.FAILED)
    assert decision.delay == backoff(attempt + 1)
    assert decision.attempt == attempt + 1


def test_the_failure_after_the_last_retry_is_the_end() -> None:
    decision = decide(replace(FRESH, attempt=2), Ending.FAILED)

    assert (decision.state, decision.attempt, decision.delay, decision.note) == (State.FAILED, 3, None, None)


def test_a_failure_that_the_rules_refuse_is_the_end_and_says_why() -> None:
    choosy = replace(FRESH, rules=RetryRules(on=("timeout",)))

    refused = decide(choosy, Ending.FAILED, Failure(reason="exited", exit_code=3))
    retried = decide(choosy, Ending.FAILED, Failure(reason="timeout"))

    assert (refused.state, refused.outcome, refused.delay) == (State.FAILED, Outcome.FAILED, None)
    assert (refused.attempt, refused.note) == (1, "exit code 3 is not retried")
    assert (retried.state, retried.delay) == (State.RETRYING, backoff(1))


def test_rules_say_nothing_where_no_retry_is_left_or_nothing_failed() -> None:
    choosy = replace(FRESH, rules=RetryRules(on=("timeout",)))
    failure = Failure(reason="exited", exit_code=3)

    assert decide(replace(choosy, attempt=2), Ending.FAILED, failure).note is None
    assert decide(choosy, Ending.SUCCEEDED, Failure(reason="exited", exit_code=0)).state is State.COMPLETED
    for ending in (Ending.LOST, Ending.RETURNED):
        assert decide(choosy, ending, Failure(reason="worker_lost")).state is State.PENDING


def test_a_cancelled_job_is_cancelled_whatever_the_rules_say() -> None:
    choosy = replace(FRESH, rules=RetryRules(never=("exit",)), cancel_requested=True)

    decision = decide(choosy, Ending.FAILED, Failure(reason="exited", exit_code=3))

    assert (decision.state, decision.note) == (State.CANCELLED, None)


@pytest.mark.parametrize("ending", [Ending.FAILED, Ending.LOST])
def test_a_delay_is_as_random_as_the_job_wants_it(ending: Ending) -> None:
    steady = replace(FRESH, rules=RetryRules(jitter=Jitter.NONE), lost=1)

    delay = decide(steady, ending).delay

    assert isinstance(delay, Backoff)
    assert delay.jitter is Jitter.NONE


@pytest.mark.parametrize(("lost", "delay"), [(0, 0), (1, backoff(1)), (2, backoff(2)), (3, backoff(3))])
def test_a_lost_job_goes_back_at_once_and_later_by_its_backoff(lost: int, delay: int | Backoff) -> None:
    decision = decide(replace(FRESH, lost=lost, attempt=1), Ending.LOST)

    assert (decision.state, decision.outcome, decision.delay) == (State.PENDING, Outcome.LOST, delay)
    assert (decision.lost, decision.attempt) == (lost + 1, 1)


def test_a_job_that_loses_its_worker_too_often_fails_and_says_why() -> None:
    decision = decide(replace(FRESH, lost=limits.LOST_MAX - 1), Ending.LOST)

    assert (decision.state, decision.lost, decision.delay) == (State.FAILED, limits.LOST_MAX, None)
    assert decision.note == "its worker was lost 5 times while it ran"


def test_a_returned_job_waits_longer_each_time_up_to_half_a_minute() -> None:
    delays = [decide(replace(FRESH, returned=count), Ending.RETURNED).delay for count in range(limits.RETURNS_MAX - 1)]

    assert delays == [1000 * seconds for seconds in (0, 1, 2, 4, 8, 16, *[30] * 13)]


def test_a_job_that_is_returned_too_often_fails_and_says_why() -> None:
    decision = decide(replace(FRESH, returned=limits.RETURNS_MAX - 1), Ending.RETURNED)

    assert (decision.state, decision.outcome) == (State.FAILED, Outcome.RETURNED)
    assert "undeliverable" in (decision.note or "")


@pytest.mark.parametrize("ending", Ending)
def test_every_end_of_a_job_to_be_cancelled_cancels_it_and_keeps_what_it_was(ending: Ending) -> None:
    worst = Budget(
        attempt=2,
        max_retries=2,
        lost=limits.LOST_MAX - 1,
        returned=limits.RETURNS_MAX - 1,
        cancel_requested=False,
        backoff=(0, 1.0, 0),
    )
    for budget in (FRESH, worst):
        cancelled = decide(replace(budget, cancel_requested=True), ending)
        plain = decide(budget, ending)

        assert (cancelled.state, cancelled.delay, cancelled.note) == (State.CANCELLED, None, None)
        assert cancelled.outcome is plain.outcome
        assert (cancelled.attempt, cancelled.lost, cancelled.returned) == (plain.attempt, plain.lost, plain.returned)


def test_a_decision_has_a_delay_exactly_if_the_job_goes_on() -> None:
    for ending, attempt, lost, returned, cancel in product(Ending, range(4), range(5), range(20), (False, True)):
        budget = replace(FRESH, attempt=attempt, lost=lost, returned=returned, cancel_requested=cancel)
        decision = decide(budget, ending)

        assert (decision.delay is None) == (decision.state in TERMINAL)
        assert decision.lost <= limits.LOST_MAX
        assert decision.returned <= limits.RETURNS_MAX
