"""The audit on a real server: a hint that Redis loses by itself is found again."""

import asyncio

import asyncpg
import redis.asyncio

from orqestra.engine.audit import REST, Audit
from orqestra.v1 import jobs_pb2
from tests.support.clock import ManualClock
from tests.support.server import RunningServer
from tests.support.waiting import until

FOUND_SECONDS = 6.0


async def test_a_lost_hint_is_found_and_its_job_runs(
    server: RunningServer, redis_url: str, redis_namespace: str
) -> None:
    # Given a job that waits for a worker, whose hint Redis has forgotten
    job_id = await server.submit()
    async with redis.asyncio.from_url(redis_url) as client:
        found: list[bytes | str] = []

        async def is_ready() -> bool:
            found[:] = await client.keys(f"{{{redis_namespace}}}:ready:*")
            return bool(found)

        await until(is_ready, FOUND_SECONDS)
        [ready] = found
        await client.delete(ready)

    # When a worker comes that serves its lane
    async with server.worker() as worker:
        stream = await worker.open()
        [job] = await stream.assigned(1, FOUND_SECONDS)
        await stream.finish([job])

    # Then it has run, once
    assert job.attempt.job_id == job_id
    assert (await server.until(job_id, jobs_pb2.STATUS_COMPLETED)).attempt == 1


async def test_the_audit_rests_long_where_postgres_took_long(
    server: RunningServer, sql: "asyncpg.Connection[asyncpg.Record]", database: str
) -> None:
    """However many index entries of jobs that have ended are in its way, it takes a twentieth of the time at most."""
    [audit] = [service for service in server.server._parts.services if isinstance(service, Audit)]
    await audit.stop()
    audit.clock = clock = ManualClock()
    watcher = await asyncpg.connect(database)
    async with server.worker() as worker:
        await worker.open()
        await server.submit()

        # Given a statement of the audit that waits
        async with sql.transaction(), asyncio.timeout(FOUND_SECONDS):
            await sql.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
            step = asyncio.create_task(audit.run_once())

            async def it_waits() -> bool:
                waiting = await watcher.fetch("SELECT query FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
                return any("list_overdue" in row["query"] for row in waiting)

            await until(it_waits, FOUND_SECONDS)

            # When that takes two seconds
            await clock.advance(2)
        rest_seconds = await step

    # Then the next one is much later
    assert rest_seconds is not None and rest_seconds > 2 * REST * 0.7
    await watcher.close()
