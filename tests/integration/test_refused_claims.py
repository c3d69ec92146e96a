"""Jobs that wait and cannot be claimed: the dispatcher does not try them without a pause, and not too late."""

import asyncio
import time

import pytest

from tests.support.lossy_postgres import LossyPostgres
from tests.support.server import RunningServer, Sql, running_server, settings_for

pytestmark = pytest.mark.alone

# Without a pause this many are a matter of 20 ms; with it the pauses alone are three times as long as this.
CLAIMS = 16
CLAIMS_SECONDS = 0.15
PATIENCE_SECONDS = 10.0
# From the end of a hindrance on: the longest pause, and room for a slow machine.
SOON_SECONDS = 0.75


async def seconds_of_claims(lossy: LossyPostgres, count: int) -> float:
    """Return how long it takes until so many more claims have been tried."""
    wanted = lossy.count("claim_jobs") + count
    began = time.perf_counter()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while lossy.count("claim_jobs") < wanted:
            await asyncio.sleep(0.005)
    return time.perf_counter() - began


async def check_locked_job_is_tried_with_pauses(lossy: LossyPostgres, server: RunningServer, sql: Sql) -> None:
    async with server.worker() as worker:
        locked = await server.submit()
        async with sql.transaction():
            await sql.execute("SELECT FROM jobs WHERE id = $1 FOR UPDATE", locked)
            stream = await worker.open()
            assert await seconds_of_claims(lossy, CLAIMS) > CLAIMS_SECONDS
        [job] = await stream.assigned(1, seconds=SOON_SECONDS)
        assert job.attempt.job_id == locked


async def test_a_locked_job_is_tried_with_pauses(lossy: LossyPostgres, frail: RunningServer, sql: Sql) -> None:
    await check_locked_job_is_tried_with_pauses(lossy, frail, sql)


async def test_a_locked_job_is_tried_with_pauses_without_redis(
    lossy: LossyPostgres, redis_namespace: str, sql: Sql
) -> None:
    async with running_server(settings_for(lossy.url, "127.0.0.1:1", redis_namespace)) as server:
        await check_locked_job_is_tried_with_pauses(lossy, server, sql)


async def test_wakes_do_not_shorten_the_pause(lossy: LossyPostgres, frail: RunningServer, sql: Sql) -> None:
    async with frail.worker() as worker, sql.transaction():
        await sql.execute("SELECT FROM jobs WHERE id = $1 FOR UPDATE", await frail.submit())
        await worker.open()
        waking = asyncio.create_task(_wake_for_ever(frail))

        assert await seconds_of_claims(lossy, CLAIMS) > CLAIMS_SECONDS
        waking.cancel()


async def _wake_for_ever(server: RunningServer) -> None:
    while True:
        # Jobs of a queue that nobody serves: each commit wakes the dispatcher.
        await server.submit(queue="nobody")


async def test_a_locked_job_holds_up_none_that_is_free(frail: RunningServer, sql: Sql) -> None:
    async with frail.worker(slots=2) as worker, sql.transaction():
        await sql.execute("SELECT FROM jobs WHERE id = $1 FOR UPDATE", await frail.submit())
        stream = await worker.open()

        for _ in range(20):
            free = await frail.submit()
            [job] = await stream.assigned(1, seconds=SOON_SECONDS)
            assert job.attempt.job_id == free
            await stream.finish([job])


async def test_a_session_that_is_closed_in_postgres_is_not_offered_work_without_a_pause(
    lossy: LossyPostgres, frail: RunningServer, sql: Sql
) -> None:
    """Until the next renewal tells, which is a second, its slots look free."""
    async with frail.worker() as worker:
        stream = await worker.open()
        await sql.execute("UPDATE sessions SET closed_at = now(), closed_reason = 'replaced'")
        job_id = await frail.submit()

        await stream.next("goodbye")

        assert lossy.count("claim_jobs") < 50
        second = await worker.open()
        assert (await second.assigned(1))[0].attempt.job_id == job_id
