"""The lifecycle is written once: the schema, the SQL and the document say what `model.lifecycle` says."""

import re
from collections import defaultdict
from pathlib import Path

import asyncpg
import pytest

from orqestra.model.decision import Budget, Ending, Outcome, decide
from orqestra.model.lifecycle import BORN, RUN_TRANSITIONS, TERMINAL, TRANSITIONS, WAITING, Event, RunState, State, step
from orqestra.store.queries import load_queries

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "lifecycle.md").read_text()

BIRTH = re.compile(r"^    \[\*\] --> (\w+)$", re.MULTILINE)
EDGE = re.compile(r"^    (\w+) --> (\w+)(?:: (\w+))?$", re.MULTILINE)
ROW = re.compile(r"^\| `(\w+)` \| ([\w, ]+) \| (\w+) \| ([\w ]+) \|$", re.MULTILINE)
# What stands beside a column of states in SQL: = 'x', <> 'x', IN ('x', 'y').
COMPARED = re.compile(r"\bstate\s*(?:=|<>|IN)\s*(\([^)]*\)|'[^']*')")
CHOSEN = re.compile(r"\b(?:state|closed_reason)\s*=\s*CASE.*?END", re.DOTALL)
LITERAL = re.compile(r"'([^']*)'")


def diagrams() -> list[set[tuple[str, ...]]]:
    """Return the edges of each picture of the document, without those from nowhere."""
    pictures = re.findall(r"```mermaid\n(.*?)```", DOCUMENT, re.DOTALL)
    return [{tuple(part for part in edge if part) for edge in EDGE.findall(picture)} for picture in pictures]


async def allowed(url: str, table: str, column: str) -> set[str]:
    """Return the values that the CHECK of one column allows."""
    connection = await asyncpg.connect(url)
    definitions = await connection.fetch(
        "SELECT pg_get_constraintdef(c.oid) AS text FROM pg_constraint c"
        " JOIN pg_attribute a ON a.attrelid = c.conrelid AND c.conkey = ARRAY[a.attnum]"
        " WHERE c.contype = 'c' AND c.conrelid = $1::regclass AND a.attname = $2",
        *(table, column),
    )
    await connection.close()
    [definition] = definitions
    return set(LITERAL.findall(definition["text"]))


async def test_the_checks_of_the_schema_are_the_enums(database: str) -> None:
    assert await allowed(database, "jobs", "state") == set(State)
    assert await allowed(database, "workflow_runs", "state") == set(RunState)
    assert await allowed(database, "attempts", "outcome") == set(Outcome)


@pytest.mark.parametrize("name", sorted(load_queries()))
def test_states_in_sql_are_states(name: str) -> None:
    text = load_queries()[name].text
    runs = "workflow_runs" in text
    known = set(RunState) if runs else set(State)

    compared = {literal for found in COMPARED.findall(text) for literal in LITERAL.findall(found)}

    assert compared <= known


def test_the_picture_is_the_table_of_transitions() -> None:
    jobs, runs = diagrams()

    assert jobs == {(source, target, event) for (source, event), target in TRANSITIONS.items()}
    assert runs == set(RUN_TRANSITIONS)


def test_the_picture_says_how_a_job_is_born() -> None:
    picture, _ = re.findall(r"```mermaid\n(.*?)```", DOCUMENT, re.DOTALL)

    assert set(BIRTH.findall(picture)) == set(BORN)
    for state, fence in BORN.items():
        assert re.search(rf"born `{state}`,\s+with fence {fence}\b", DOCUMENT), state


def test_the_table_of_events_is_the_table_of_transitions() -> None:
    sources: dict[Event, list[State]] = defaultdict(list)
    for source, event in TRANSITIONS:
        sources[event].append(source)
    written = {event: (from_.split(", "), to) for event, from_, to, _ in ROW.findall(DOCUMENT)}

    assert {event: sorted(from_) for event, (from_, _) in written.items()} == {
        event: sorted(states) for event, states in sources.items()
    }
    for event, (from_, to) in written.items():
        assert {step(State(state), Event(event)) for state in from_} == {to}, event


def test_what_counts_as_an_attempt_is_what_decide_counts() -> None:
    counts = {event: text for event, _, _, text in ROW.findall(DOCUMENT)}
    budget = Budget(attempt=0, max_retries=1, lost=0, returned=0, cancel_requested=False, backoff=(0, 1, 0))
    endings = {
        Event.SUCCEEDED: Ending.SUCCEEDED,
        Event.FAILED: Ending.FAILED,
        Event.LOST: Ending.LOST,
        Event.RETURNED: Ending.RETURNED,
    }

    for event, ending in endings.items():
        assert (counts[event] == "yes") == (decide(budget, ending).attempt == 1), event


def test_waiting_and_terminal_are_what_the_transitions_make_them() -> None:
    left = {source for source, event in TRANSITIONS if event is not Event.RETRIED}

    assert {source for source, event in TRANSITIONS if event is Event.CLAIMED} == WAITING
    assert set(State) - left == TERMINAL
