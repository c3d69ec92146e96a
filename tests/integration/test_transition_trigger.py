"""The trigger of the test databases against the table it is built from: every pair of states, tried."""

import itertools
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from orqestra.model.lifecycle import RUN_TRANSITIONS, TERMINAL, TRANSITIONS, WAITING, RunState, State
from orqestra.store.connections import Connection
from tests.support.transitions import SQLSTATE

INSERT = """
INSERT INTO jobs (id, queue, lane_id, priority, type, payload, max_retries, backoff_base_ms, backoff_factor,
                  backoff_cap_ms, timeout_ms, grace_ms, state, available_at, delayed, fence, token, session_id)
VALUES (nextval('jobs_id_seq'), 'q', 1, 4, 'noop', '', 0, 1, 1, 1, 0, 0, $1, now(), false, $2, 1, 1) RETURNING id
"""
# Past the trigger, as nothing but a test may.
PLACE = "UPDATE jobs SET state = $2, fence = 3, delayed = $3, finished_at = $4, cancel_requested_at = $5 WHERE id = $1"
MOVE = "UPDATE jobs SET state = $2, fence = fence + $3, delayed = $4, finished_at = $5 WHERE id = $1"


EDGES = sorted({(source, to) for (source, _), to in TRANSITIONS.items()} | {(state, state) for state in State})


@pytest_asyncio.fixture
async def connection(database: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


async def place(connection: Connection, state: State, *, cancelled: bool = False) -> int:
    """Put a job with fence 3 into a state, whatever the trigger would say."""
    job_id: int = await connection.fetchval(INSERT, State.PENDING, 0)
    now = await connection.fetchval("SELECT now()")
    await connection.execute("ALTER TABLE jobs DISABLE TRIGGER ALL")
    await connection.execute(
        PLACE, job_id, state, state is State.RETRYING, now if state in TERMINAL else None, now if cancelled else None
    )
    await connection.execute("ALTER TABLE jobs ENABLE TRIGGER ALL")
    return job_id


async def move(connection: Connection, job_id: int, target: State, *, fence: int = 0) -> str:
    """Try to move a job; return "" or what the trigger said."""
    now = await connection.fetchval("SELECT finished_at FROM jobs WHERE id = $1", job_id)
    now = now or await connection.fetchval("SELECT now()")
    try:
        await connection.execute(
            MOVE, job_id, target, fence, target is State.RETRYING, now if target in TERMINAL else None
        )
    except asyncpg.PostgresError as error:
        assert error.sqlstate == SQLSTATE, error
        return str(error)
    return ""


@pytest.mark.parametrize("source", State)
async def test_a_job_goes_where_the_lifecycle_says_and_nowhere_else(connection: Connection, source: State) -> None:
    for target in State:
        is_claim = source in WAITING and target is State.RUNNING
        job_id = await place(connection, source, cancelled=source is State.RUNNING and target is State.CANCELLED)

        problem = await move(connection, job_id, target, fence=int(is_claim))

        assert (problem == "") is ((source, target) in EDGES), (source, target, problem)


@pytest.mark.parametrize(("source", "target"), EDGES)
async def test_the_fence_rises_by_one_with_a_claim_and_only_there(
    connection: Connection, source: State, target: State
) -> None:
    is_claim = source in WAITING and target is State.RUNNING
    for change in (-1, 1, 2) if not is_claim else (-1, 0, 2):
        job_id = await place(connection, source)
        assert "the fence rises" in await move(connection, job_id, target, fence=change)


async def test_what_is_cancelled_is_not_claimed(connection: Connection) -> None:
    job_id = await place(connection, State.PENDING, cancelled=True)

    assert "nothing cancelled is claimed" in await move(connection, job_id, State.RUNNING, fence=1)


@pytest.mark.parametrize("target", [State.COMPLETED, State.RETRYING, State.FAILED, State.PENDING])
async def test_a_running_job_that_was_cancelled_ends_cancelled(connection: Connection, target: State) -> None:
    job_id = await place(connection, State.RUNNING, cancelled=True)

    assert "ends cancelled if" in await move(connection, job_id, target)
    assert "ends cancelled if" in await move(connection, await place(connection, State.RUNNING), State.CANCELLED)


@pytest.mark.parametrize("state", sorted(TERMINAL))
async def test_a_result_is_written_once(connection: Connection, state: State) -> None:
    job_id = await place(connection, state)

    with pytest.raises(asyncpg.PostgresError, match="a result is written once"):
        await connection.execute("UPDATE jobs SET exit_code = 7 WHERE id = $1", job_id)
    await connection.execute("UPDATE jobs SET tags = '{late}' WHERE id = $1", job_id)


@pytest.mark.parametrize(("state", "fence"), [("completed", 0), ("pending", 1), ("running", 0), ("running", 2)])
async def test_a_job_is_born_waiting_or_claimed(connection: Connection, state: str, fence: int) -> None:
    with pytest.raises(asyncpg.PostgresError, match=f"is born {state} with fence {fence}"):
        await connection.execute(INSERT, state, fence)


async def test_a_run_goes_where_the_lifecycle_says(
    connection: Connection,
) -> None:
    for source, target in itertools.product(RunState, RunState):
        finished = {state: None if state is RunState.RUNNING else "2026-01-01" for state in RunState}
        run_id = await connection.fetchval(
            "INSERT INTO workflow_runs (name, definition, state, finished_at)"
            " VALUES ('w', '{}', $1, $2::text::timestamptz) RETURNING id",
            source,
            finished[source],
        )
        change = connection.execute(
            "UPDATE workflow_runs SET state = $2, finished_at = $3::text::timestamptz WHERE id = $1",
            *(run_id, target, finished[target]),
        )
        if source is target or (source, target) in RUN_TRANSITIONS:
            await change
        else:
            with pytest.raises(asyncpg.PostgresError, match="no such step"):
                await change
