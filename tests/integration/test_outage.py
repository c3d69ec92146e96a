"""Postgres or Redis away: nothing stored is forgotten, nothing runs twice."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest_asyncio
import redis.asyncio

from orqestra.embedded.postgres import EmbeddedPostgres
from orqestra.embedded.redis import EmbeddedRedis
from orqestra.store import migrations
from orqestra.v1.jobs_pb2 import SubmitRequest
from orqestra.v1.worker_pb2 import Results
from tests.support.lossy_postgres import LossyPostgres
from tests.support.raw_worker import good
from tests.support.server import RunningServer, Sql, noop, refusal, running_server, settings_for

BURST = 300


@pytest_asyncio.fixture
async def own_redis(folder: Path) -> AsyncIterator[EmbeddedRedis]:
    """A Redis of this test alone, to be killed."""
    async with EmbeddedRedis(folder / "redis") as server:
        yield server


async def check_each_ran_once(sql: Sql, ids: list[int], ran: list[int]) -> None:
    assert sorted(ran) == sorted(ids)
    async with asyncio.timeout(10):
        while await sql.fetchval("SELECT count(*) FROM jobs WHERE state <> 'completed'"):
            await asyncio.sleep(0.02)
    assert await sql.fetchval("SELECT count(*) FROM jobs WHERE fence = 1 AND id = ANY($1)", ids) == len(ids)
    assert await sql.fetchval("SELECT count(*) FROM attempts") == 0


# Redis


async def test_without_redis_everything_goes_on_and_with_an_empty_one_too(
    database: str, own_redis: EmbeddedRedis, redis_namespace: str, sql: Sql
) -> None:
    async with (
        running_server(settings_for(database, own_redis.address, redis_namespace)) as server,
        server.worker(slots=50) as worker,
    ):
        stream = await worker.open()
        ids = await server.submit_many(BURST)
        ran = asyncio.create_task(stream.run(3 * BURST))
        await own_redis.child.stop((signal.SIGKILL, 1.0))
        ids += await server.submit_many(BURST - 1)
        delayed = await server.submit(delay_ms=500)
        async with asyncio.timeout(10):
            while await sql.fetchval("SELECT count(*) FROM jobs WHERE state <> 'completed'"):
                await asyncio.sleep(0.02)
        # Some wait in Postgres alone when Redis comes back with nothing in it.
        late = await server.submit_many(BURST, delay_ms=300)
        await own_redis.start()

        async with asyncio.timeout(15):
            ran_ids = await ran
        await check_each_ran_once(sql, [*ids, delayed, *late], ran_ids)


async def test_a_flushed_redis_in_the_middle_of_a_burst_loses_nothing(
    database: str, own_redis: EmbeddedRedis, redis_namespace: str, sql: Sql
) -> None:
    async with (
        running_server(settings_for(database, own_redis.address, redis_namespace)) as server,
        server.worker(slots=20) as worker,
        redis.asyncio.Redis.from_url(own_redis.address) as client,
    ):
        stream = await worker.open()
        ids = await server.submit_many(2000)
        ids += await server.submit_many(100, delay_ms=400)
        ran = asyncio.create_task(stream.run(3000))
        for _ in range(3):
            await client.flushall()
            ids += await server.submit_many(300)

        async with asyncio.timeout(20):
            ran_ids = await ran
        await check_each_ran_once(sql, ids, ran_ids)


# Postgres


async def test_while_postgres_is_away_submits_are_told_so_and_afterwards_it_goes_on(
    lossy: LossyPostgres, frail: RunningServer, sql: Sql
) -> None:
    async with frail.worker(slots=4) as worker:
        stream = await worker.open()
        await frail.submit_many(2)
        running = await stream.assigned(2)

        await lossy.close()
        for _ in range(3):
            refused = await refusal(frail.jobs.Submit(SubmitRequest(job=noop())))
            assert refused.status in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED}, refused
        assert refused.status is grpc.StatusCode.UNAVAILABLE, refused
        assert refused.trailers["orqestra-stored"] == "no"
        assert int(refused.trailers["orqestra-retry-after-ms"]) > 0
        assert "Traceback" not in refused.message
        # Results that come meanwhile are settled once it is back.
        await stream.send(results=Results(results=[good(job.attempt) for job in running]))
        await lossy.open()

        acks = (await stream.next("result_acks")).acks
        assert [ack.verdict for ack in acks] == [1, 1]
        assert await frail.submit() == (await stream.assigned(1))[0].attempt.job_id
    assert await sql.fetchval("SELECT count(*) FROM attempts") == 0


async def test_a_postgres_that_crashes_and_restarts_keeps_all_that_was_acknowledged(
    folder: Path, redis_url: str, redis_namespace: str
) -> None:
    async with EmbeddedPostgres(folder / "postgres", durable=False) as postgres:
        await migrations.up(postgres.url())
        async with running_server(settings_for(postgres.url(), redis_url, redis_namespace)) as server:
            acked = await server.submit_many(50)
            submits = [asyncio.create_task(_try_submit(server)) for _ in range(200)]
            await submits[0]
            postgres.kill()
            await postgres.child.wait()
            acked += [job_id for job_id in await asyncio.gather(*submits) if job_id]
            refused = await refusal(server.jobs.Submit(SubmitRequest(job=noop())))
            assert refused.status is grpc.StatusCode.UNAVAILABLE

            await postgres.start()

            async with asyncio.timeout(10):
                while not (job_id := await _try_submit(server)):
                    await asyncio.sleep(0.05)
            async with server.worker(slots=300) as worker:
                stream = await worker.open()
                ran: set[int] = set()
                async with asyncio.timeout(15):
                    while not ran >= {*acked, job_id}:
                        ran.update(await stream.run(1))


async def _try_submit(server: RunningServer) -> int | None:
    try:
        return await server.submit()
    except grpc.aio.AioRpcError:
        return None
