"""Postgres or Redis away, and answers that are lost: nothing stored is forgotten, nothing runs twice."""

import asyncio
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
import redis.asyncio

from orqestra.embedded.postgres import EmbeddedPostgres
from orqestra.embedded.redis import EmbeddedRedis
from orqestra.store import migrations
from orqestra.v1.jobs_pb2 import SubmitBatchRequest, SubmitRequest
from orqestra.v1.worker_pb2 import Results
from tests.support.lossy_postgres import LossyPostgres, lossy_postgres
from tests.support.raw_worker import RawStream, good, held
from tests.support.server import RunningServer, Sql, noop, refusal, running_server, settings_for

BURST = 300


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path, for sockets."""
    with tempfile.TemporaryDirectory(prefix="orqestra-out-") as directory:
        yield Path(directory)


@pytest_asyncio.fixture
async def own_redis(folder: Path) -> AsyncIterator[EmbeddedRedis]:
    """A Redis of this test alone, to be killed."""
    async with EmbeddedRedis(folder / "redis") as server:
        yield server


@pytest_asyncio.fixture
async def lossy(database: str, folder: Path) -> AsyncIterator[LossyPostgres]:
    """A way to the database of this test that can be cut."""
    async with lossy_postgres(database, folder) as proxy:
        yield proxy


@pytest_asyncio.fixture
async def frail(lossy: LossyPostgres, redis_url: str, redis_namespace: str) -> AsyncIterator[RunningServer]:
    """A server whose connections to Postgres can be cut."""
    settings = settings_for(lossy.url, redis_url, redis_namespace, ORQESTRA_LEASE_SECONDS="3")
    async with running_server(settings) as server:
        yield server


async def run_all(stream: RawStream, count: int) -> list[int]:
    """Run jobs until so many have come, as a fast worker; return their ids in the order they came."""
    ids: list[int] = []
    while len(ids) < count:
        jobs = (await stream.next("assign")).jobs
        ids += [job.attempt.job_id for job in jobs]
        await stream.send(results=Results(results=[good(job.attempt) for job in jobs]))
    return ids


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
        ran = asyncio.create_task(run_all(stream, 3 * BURST))
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
        ran = asyncio.create_task(run_all(stream, 3000))
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
                        ran.update(await run_all(stream, 1))


async def _try_submit(server: RunningServer) -> int | None:
    try:
        return await server.submit()
    except grpc.aio.AioRpcError:
        return None


# Answers that are lost

LOSSES = pytest.mark.parametrize("after_commit", [True, False], ids=["after the commit", "before it"])


@LOSSES
async def test_a_submit_with_a_key_is_run_again_and_stored_once(
    lossy: LossyPostgres, frail: RunningServer, sql: Sql, *, after_commit: bool
) -> None:
    await frail.submit()
    lossy.lose("INSERT INTO jobs", after_commit=after_commit)

    job_id = await frail.submit(idempotency_key="key")

    assert lossy.cuts == 1
    assert [row["id"] for row in await sql.fetch("SELECT id FROM jobs WHERE idempotency_key = 'key'")] == [job_id]


@LOSSES
async def test_a_submit_without_a_key_may_have_been_stored_and_is_told_so(
    lossy: LossyPostgres, frail: RunningServer, sql: Sql, *, after_commit: bool
) -> None:
    await frail.submit()
    lossy.lose("INSERT INTO jobs", after_commit=after_commit)

    refused = await refusal(frail.jobs.Submit(SubmitRequest(job=noop())))

    assert refused.status is grpc.StatusCode.ABORTED
    assert refused.trailers["orqestra-code"] == "maybe_stored"
    assert "orqestra-stored" not in refused.trailers
    assert "may have been stored" in refused.message
    assert await sql.fetchval("SELECT count(*) FROM jobs") == 1 + after_commit


@pytest.mark.parametrize("keyed", [True, False])
async def test_the_commit_of_a_large_batch_that_is_lost(
    lossy: LossyPostgres, frail: RunningServer, sql: Sql, *, keyed: bool
) -> None:
    lossy.lose("COMMIT", after_commit=True)
    batch = [noop(idempotency_key=f"k{number}" if keyed else "") for number in range(2500)]
    call = frail.jobs.SubmitBatch(SubmitBatchRequest(jobs=batch))

    if keyed:
        assert len(set((await call).ids)) == 2500
    else:
        assert (await refusal(call)).status in {grpc.StatusCode.ABORTED, grpc.StatusCode.OK}
    assert await sql.fetchval("SELECT count(*) FROM jobs") == 2500


@LOSSES
async def test_a_claim_whose_answer_is_lost_strands_no_job(
    lossy: LossyPostgres, frail: RunningServer, sql: Sql, *, after_commit: bool
) -> None:
    async with frail.worker(slots=5) as worker:
        stream = await worker.open()
        lossy.lose("SET state = 'running'", after_commit=after_commit)
        ids = await frail.submit_many(5)

        await stream.next("goodbye")
        second = await worker.open()
        ran = await run_all(second, 5)

    assert sorted(ran) == ids
    assert await sql.fetchval("SELECT max(fence) FROM jobs") == 1 + after_commit


@LOSSES
async def test_a_settlement_whose_answer_is_lost_is_settled_once(
    lossy: LossyPostgres, frail: RunningServer, sql: Sql, *, after_commit: bool
) -> None:
    async with frail.worker(slots=5) as worker:
        stream = await worker.open()
        await frail.submit_many(5)
        jobs = await stream.assigned(5)
        lossy.lose("SET state = 'completed'", after_commit=after_commit)

        verdicts = await stream.finish(jobs)

    # What had been stored is told as stored before: either way the worker is rid of it.
    assert set(verdicts) == {2 if after_commit else 1}
    assert await sql.fetchval("SELECT count(*) FROM jobs WHERE state = 'completed' AND fence = 1") == 5


async def test_a_hello_whose_answer_is_lost_leaves_the_worker_free_to_try_again(
    lossy: LossyPostgres, frail: RunningServer
) -> None:
    async with frail.worker() as worker:
        stream = await worker.open()
        await frail.submit()
        [job] = await stream.assigned(1)
        lossy.lose("UPDATE jobs j SET session_id", after_commit=True)
        lost = await worker.dial()
        await lost.send(hello=worker.hello(held=[held(job)]))

        code, _ = await lost.end()
        assert code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.OK}
        second = await worker.open(held=[held(job)])
        assert list(second.welcome.revoke) == []
        assert await second.finish([job]) == [1]
