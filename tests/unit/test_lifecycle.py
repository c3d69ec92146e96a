"""The one table of transitions: what it allows, and that nothing can get stuck or escape."""

import pytest

from orqestra.model.lifecycle import (
    RUN_TRANSITIONS,
    TERMINAL,
    TRANSITIONS,
    WAITING,
    Event,
    RunState,
    State,
    sources,
    step,
)


def test_a_step_goes_where_the_table_says_and_is_refused_elsewhere() -> None:
    assert step(State.PENDING, Event.CLAIMED) is State.RUNNING
    assert step(State.RUNNING, Event.FAILED) is State.RETRYING
    assert step(State.COMPLETED, Event.RETRIED) is None
    assert step(State.COMPLETED, Event.CANCELLED) is None
    assert {(state, event) for state in State for event in Event if step(state, event)} == set(TRANSITIONS)


def test_sources_keep_the_order_of_the_table() -> None:
    assert sources(Event.CLAIMED) == (State.PENDING, State.RETRYING)
    assert sources(Event.RETRIED) == (State.FAILED, State.CANCELLED)
    assert set(sources(Event.CANCELLED)) == WAITING | {State.RUNNING}


@pytest.mark.parametrize("event", Event)
def test_every_event_has_its_place(event: Event) -> None:
    assert sources(event)


def test_what_is_completed_stays_so() -> None:
    assert not [event for event in Event if step(State.COMPLETED, event)]


@pytest.mark.parametrize("state", sorted(TERMINAL - {State.COMPLETED}))
def test_only_an_operator_takes_a_job_out_of_its_end(state: State) -> None:
    assert [event for event in Event if step(state, event)] == [Event.RETRIED]


def test_every_state_is_reached_and_can_reach_an_end() -> None:
    targets = {source: {to for (from_, _), to in TRANSITIONS.items() if from_ is source} for source in State}

    def reach(start: State) -> set[State]:
        found, waiting = {start}, [start]
        while waiting:
            new = targets[waiting.pop()] - found
            found |= new
            waiting += new
        return found

    assert reach(State.PENDING) == set(State)
    assert all(reach(state) & TERMINAL for state in State)


def test_a_run_leaves_only_running_and_comes_back_only_from_failed() -> None:
    assert {target for source, target in RUN_TRANSITIONS if source is RunState.RUNNING} == set(RunState) - {
        RunState.RUNNING
    }
    assert {source for source, target in RUN_TRANSITIONS if target is RunState.RUNNING} == {RunState.FAILED}
