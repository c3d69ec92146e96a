"""The states of a job and of a run, and every way from one to the next. Written here and nowhere else.

SQL guards are given their states by `sources()`; the CHECK constraint, the trigger that tests install
and the picture in `docs/lifecycle.md` are tested against `TRANSITIONS`.
"""

from enum import StrEnum
from typing import Final


class State(StrEnum):
    """Where a job stands. Called `status` outside (CLI, API), `state` in SQL."""

    PENDING = "pending"
    RUNNING = "running"
    RETRYING = "retrying"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Event(StrEnum):
    """What can happen to a job. `exhausted` is the failure after which there is no retry."""

    CLAIMED = "claimed"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    EXHAUSTED = "exhausted"
    LOST = "lost"
    RETURNED = "returned"
    ABANDONED = "abandoned"
    CANCELLED = "cancelled"
    RETRIED = "retried"


class RunState(StrEnum):
    """Where a workflow run stands. A run has no state of waiting: its first step waits for it."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL: Final = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED})
WAITING: Final = frozenset({State.PENDING, State.RETRYING})
# How a job is inserted, with its fence: waiting and never claimed, or claimed at once (direct match).
BORN: Final = {State.PENDING: 0, State.RUNNING: 1}

# `cancelled` out of `running` is the end of an attempt whose job has `cancel_requested_at` set:
# then every event out of `running` becomes this one (`decision.decide`).
TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    (State.PENDING, Event.CLAIMED): State.RUNNING,
    (State.RETRYING, Event.CLAIMED): State.RUNNING,
    (State.RUNNING, Event.SUCCEEDED): State.COMPLETED,
    (State.RUNNING, Event.FAILED): State.RETRYING,
    (State.RUNNING, Event.EXHAUSTED): State.FAILED,
    (State.RUNNING, Event.LOST): State.PENDING,
    (State.RUNNING, Event.RETURNED): State.PENDING,
    (State.RUNNING, Event.ABANDONED): State.FAILED,
    (State.RUNNING, Event.CANCELLED): State.CANCELLED,
    (State.PENDING, Event.CANCELLED): State.CANCELLED,
    (State.RETRYING, Event.CANCELLED): State.CANCELLED,
    (State.FAILED, Event.RETRIED): State.PENDING,
    (State.CANCELLED, Event.RETRIED): State.PENDING,
}

RUN_TRANSITIONS: Final[frozenset[tuple[RunState, RunState]]] = frozenset(
    {
        (RunState.RUNNING, RunState.COMPLETED),
        (RunState.RUNNING, RunState.FAILED),
        (RunState.RUNNING, RunState.CANCELLED),
        (RunState.FAILED, RunState.RUNNING),
    }
)


def step(state: State, event: Event) -> State | None:
    """Return where `event` leads from `state`, or None where it is not allowed."""
    return TRANSITIONS.get((state, event))


def sources(event: Event) -> tuple[State, ...]:
    """Return the states from which `event` may happen, in the order of the table."""
    return tuple(state for state, known in TRANSITIONS if known is event)
