"""What is under way has a connection of its own: a settlement that waits holds up no claim, a claim no settlement."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final

import pytest
import pytest_asyncio
from google.protobuf.timestamp_pb2 import Timestamp

from orqestra.store.database import COMMAND_TIMEOUT_SECONDS
from orqestra.v1 import jobs_pb2
from orqestra.v1.worker_pb2 import Results
from tests.support.raw_worker import Verdict, good
from tests.support.server import RunningServer, Sql, running_server, settings_for
from tests.support.stalling import go_on, stall_claims, stalled
from tests.support.waiting import until

pytestmark = pytest.mark.alone

JOBS: Final = 20
# What is held up here is given up a second later, and would let all others pass.
HELD_SECONDS: Final = COMMAND_TIMEOUT_SECONDS - 1
# More than there are connections.
CALLERS: Final = 8
# As few as a server may have.
CONNECTIONS: Final = "3"
# What has a time of its own is claimed, never matched directly.
PAST: Final = Timestamp(seconds=1_000_000_000)
# Each change of a job is noted with the process of Postgres that made it.
NOTE_WRITERS: Final = """
CREATE TABLE writers (pid integer NOT NULL, job_id bigint NOT NULL, state text NOT NULL);
CREATE FUNCTION note_writer() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN INSERT INTO writers VALUES (pg_backend_pid(), NEW.id, NEW.state); RETURN NULL; END';
CREATE TRIGGER note_writer AFTER UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION note_writer()"""
WAITING_FOR_US: Final = """
SELECT pid FROM pg_stat_activity
WHERE query LIKE '/* settle_completed */%' AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"""


@pytest_asyncio.fixture
async def server(database: str, redis_url: str, redis_namespace: str, sql: Sql) -> AsyncIterator[RunningServer]:
    await sql.execute(NOTE_WRITERS)
    settings = settings_for(database, redis_url, redis_namespace, ORQESTRA_DB_POOL=CONNECTIONS)
    async with running_server(settings) as running:
        yield running


async def held_settlements(sql: Sql) -> list[int]:
    """Return the processes whose settlement waits for what this connection has locked, once there are any."""
    found: list[int] = []

    async def are_there() -> bool:
        # A transaction sees the activity of the moment when it first looked.
        await sql.execute("SELECT pg_stat_clear_snapshot()")
        found[:] = [row["pid"] for row in await sql.fetch(WAITING_FOR_US)]
        return bool(found)

    await until(are_there)
    return found


async def _is_awaited(sql: Sql) -> bool:
    """Tell whether anybody waits for what this connection has locked."""
    await sql.execute("SELECT pg_stat_clear_snapshot()")
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid))"
    return bool(await sql.fetchval(waiting))


async def writers(sql: Sql, ids: Sequence[int], state: jobs_pb2.Status) -> set[int]:
    """Return the processes that brought jobs into a state, which all of them have to have been brought into."""
    name = jobs_pb2.Status.Name(state).removeprefix("STATUS_").lower()
    rows = await sql.fetch("SELECT pid, job_id FROM writers WHERE state = $1 AND job_id = ANY($2::bigint[])", name, ids)
    assert {row["job_id"] for row in rows} == set(ids)
    return {row["pid"] for row in rows}


async def test_jobs_are_claimed_and_sent_while_a_settlement_waits_for_a_lock(server: RunningServer, sql: Sql) -> None:
    async with server.worker(slots=4) as worker:
        stream = await worker.open()
        locked = await server.submit(at=PAST)
        [job] = await stream.assigned(1)
        async with sql.transaction():
            await sql.execute("SELECT FROM jobs WHERE id = $1 FOR UPDATE", locked)
            await stream.send(results=Results(results=[good(job.attempt)]))
            held = await held_settlements(sql)

            async with asyncio.timeout(HELD_SECONDS):
                ids = await server.submit_many(JOBS, at=PAST)
                assert sorted(await stream.run(JOBS)) == ids

            assert await held_settlements(sql) == held
            assert not stream.has("result_acks")
            assert not await writers(sql, ids, jobs_pb2.STATUS_RUNNING) & set(held)
        for job_id in (locked, *ids):
            await server.until(job_id, jobs_pb2.STATUS_COMPLETED)


async def test_jobs_are_submitted_and_run_while_cancels_wait_for_a_lock(server: RunningServer, sql: Sql) -> None:
    async with server.worker(slots=4) as worker:
        stream = await worker.open()
        locked = await server.submit()
        [job] = await stream.assigned(1)
        async with sql.transaction():
            await sql.execute("SELECT FROM jobs WHERE id = $1 FOR UPDATE", locked)
            request = jobs_pb2.CancelJobRequest(ids=[locked])
            cancels = [asyncio.ensure_future(server.jobs.CancelJob(request)) for _ in range(CALLERS)]
            await until(lambda: _is_awaited(sql))

            async with asyncio.timeout(HELD_SECONDS):
                ids = await server.submit_many(JOBS, at=PAST)
                assert sorted(await stream.run(JOBS)) == ids

            assert not any(cancel.done() for cancel in cancels)
        await asyncio.gather(*cancels)
        assert await stream.finish([job]) == [Verdict.VERDICT_ACCEPTED]
        await server.until(locked, jobs_pb2.STATUS_CANCELLED)


async def test_results_are_settled_and_answered_while_a_claim_waits_for_a_lock(server: RunningServer, sql: Sql) -> None:
    async with server.worker(slots=JOBS + 1) as worker:
        stream = await worker.open()
        ids = await server.submit_many(JOBS, at=PAST)
        jobs = await stream.assigned(JOBS)
        await stall_claims(sql)
        last = await server.submit(at=PAST)
        held = await stalled(sql)

        async with asyncio.timeout(HELD_SECONDS):
            for job in jobs:
                assert await stream.finish([job]) == [Verdict.VERDICT_ACCEPTED]

        assert await stalled(sql) == held
        assert not stream.has("assign")
        assert not await writers(sql, ids, jobs_pb2.STATUS_COMPLETED) & set(held)
        await go_on(sql)
        assert [job.attempt.job_id for job in await stream.assigned(1)] == [last]
