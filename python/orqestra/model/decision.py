"""What the end of an attempt does to its job: a pure function of the job and the report.

`decide` knows no clock and draws no numbers: a delay is either fixed or "the job's backoff", which
Rust computes for the whole batch.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from orqestra.model import limits
from orqestra.model.lifecycle import TERMINAL, Event, State, step
from orqestra.model.retry_rules import EVERY_FAILURE, Failure, Jitter, RetryRules, refusal


class Ending(StrEnum):
    """How an attempt ended, as its worker or the sweep tells it."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    LOST = "lost"
    RETURNED = "returned"


class Outcome(StrEnum):
    """What `attempts` keeps of it."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"
    RETURNED = "returned"


@dataclass(frozen=True, kw_only=True, slots=True)
class Backoff:
    """The delay is drawn from the job's own policy; `attempt` is the number it is drawn for."""

    attempt: int
    base_ms: int
    factor: float
    cap_ms: int
    jitter: Jitter = Jitter.FULL


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """What a job has used of its tries, and whether someone wants it cancelled."""

    attempt: int
    max_retries: int
    lost: int
    returned: int
    cancel_requested: bool
    backoff: tuple[int, float, int]
    """Base in ms, factor, cap in ms."""
    rules: RetryRules = EVERY_FAILURE


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """The job's next state and counts. `delay` is milliseconds, a backoff, or None when it has ended."""

    state: State
    outcome: Outcome
    attempt: int
    lost: int
    returned: int
    delay: int | Backoff | None
    note: str | None = None
    """Why it failed, where the attempt itself does not say."""


def decide(budget: Budget, ending: Ending, failure: Failure | None = None) -> Decision:
    """Return what becomes of a running job whose attempt ended like this; its rules look at the failure."""
    event, delay, note = _event(budget, ending, failure)
    if budget.cancel_requested:
        event, delay, note = Event.CANCELLED, None, None
    state = step(State.RUNNING, event)
    assert state is not None
    counts = ending in {Ending.SUCCEEDED, Ending.FAILED}
    return Decision(
        state=state,
        outcome=_outcome(ending),
        attempt=budget.attempt + counts,
        lost=budget.lost + (ending is Ending.LOST),
        returned=0 if counts else budget.returned + (ending is Ending.RETURNED),
        delay=None if state in TERMINAL else delay,
        note=note,
    )


def _event(budget: Budget, ending: Ending, failure: Failure | None) -> tuple[Event, int | Backoff | None, str | None]:
    match ending:
        case Ending.SUCCEEDED:
            return Event.SUCCEEDED, None, None
        case Ending.FAILED if budget.attempt < budget.max_retries:
            if failure is not None and (note := refusal(budget.rules, failure)):
                return Event.EXHAUSTED, None, note
            return Event.FAILED, _backoff(budget, budget.attempt + 1), None
        case Ending.FAILED:
            return Event.EXHAUSTED, None, None
        case Ending.LOST:
            return _lost(budget)
        case Ending.RETURNED:
            return _returned(budget)
        case _:
            assert_never(ending)


def _lost(budget: Budget) -> tuple[Event, int | Backoff | None, str | None]:
    lost = budget.lost + 1
    if lost >= limits.LOST_MAX:
        return Event.ABANDONED, None, f"its worker was lost {lost} times while it ran"
    return Event.LOST, 0 if lost == 1 else _backoff(budget, lost - 1), None


def _returned(budget: Budget) -> tuple[Event, int | Backoff | None, str | None]:
    returned = budget.returned + 1
    if returned >= limits.RETURNS_MAX:
        return Event.ABANDONED, None, f"undeliverable: handed back {returned} times in a row"
    seconds = 0 if returned == 1 else min(2 ** (returned - 2), limits.RETURN_DELAY_MAX_SECONDS)
    return Event.RETURNED, seconds * 1000, None


def _backoff(budget: Budget, attempt: int) -> Backoff:
    base_ms, factor, cap_ms = budget.backoff
    return Backoff(attempt=attempt, base_ms=base_ms, factor=factor, cap_ms=cap_ms, jitter=budget.rules.jitter)


def _outcome(ending: Ending) -> Outcome:
    match ending:
        case Ending.SUCCEEDED:
            return Outcome.COMPLETED
        case Ending.FAILED:
            return Outcome.FAILED
        case Ending.LOST:
            return Outcome.LOST
        case Ending.RETURNED:
            return Outcome.RETURNED
        case _:
            assert_never(ending)
