"""Each kind of repair counts, and alone, when its own fault is made."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import redis.asyncio

from orqestra._dispatch import outbox
from orqestra.engine.expiry import STORM_SESSIONS
from orqestra.engine.repairs import Repair
from tests.support.engine import LEASE_MS, Engine
from tests.support.lossy_postgres import LossyPostgres, lossy_postgres
from tests.support.metrics import repairs
from tests.support.server import RunningServer, Sql, running_server, settings_for

GONE_SECONDS = 8.0


@pytest_asyncio.fixture
async def lossy(database: str, folder: Path) -> AsyncIterator[LossyPostgres]:
    """A way to the database of this test that can be cut."""
    async with lossy_postgres(database, folder) as proxy:
        yield proxy


@pytest_asyncio.fixture
async def frail(lossy: LossyPostgres, redis_url: str, redis_namespace: str) -> AsyncIterator[RunningServer]:
    """A server whose connections to Postgres can be cut."""
    async with running_server(settings_for(lossy.url, redis_url, redis_namespace)) as server:
        yield server


@pytest_asyncio.fixture
async def hints(redis_url: str) -> AsyncIterator[Any]:
    """A client of the Redis of this test."""
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        yield client


async def test_a_worker_that_falls_silent(server: RunningServer) -> None:
    async with server.worker() as silent, server.worker() as other:
        stream = await silent.open()
        await server.submit()
        await stream.assigned(1)
        await stream.next("goodbye", GONE_SECONDS)

        second = await other.open()

        await second.finish(await second.assigned(1))
        assert await repairs(server.http) == {Repair.LEASE_OVER: 1, Repair.JOB_LOST: 1}


async def test_a_worker_that_never_got_its_job(server: RunningServer) -> None:
    async with server.worker() as worker:
        stream = await worker.open()
        await server.submit()
        await stream.assigned(1)

        second = await worker.open()

        await second.finish(await second.assigned(1))
        assert await repairs(server.http) == {Repair.JOB_RETURNED: 1}


@pytest.mark.asyncio(loop_scope="module")
async def test_a_storm_is_counted_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.leases, "steady_seconds", lambda: LEASE_MS / 1000)
    for _ in range(STORM_SESSIONS + 1):
        await engine.connect()
    await engine.sql("UPDATE sessions SET lease_expires_at = now() - interval '1 s'")

    await engine.expiry.run_once()
    await engine.expiry.run_once()

    assert {repair: count for repair, count in engine.core.repairs.counts.items() if count} == {Repair.LEASE_STORM: 1}
    assert await engine.sql("SELECT FROM sessions WHERE closed_at IS NOT NULL") == []


async def test_a_take_that_nobody_is_done_with(
    server: RunningServer, sql: Sql, hints: Any, redis_namespace: str
) -> None:
    job_id = await server.submit(queue="nobody")
    lane = await sql.fetchval("SELECT lane_id FROM jobs WHERE id = $1", job_id)
    await hints.delete(f"{{{redis_namespace}}}:ready:{lane:08x}")
    await hints.hset(f"{{{redis_namespace}}}:processing", "dead:1", f"1000|{lane:08x}5{job_id:016x}")

    async with server.worker(queues=["nobody"]) as worker:
        stream = await worker.open()
        await stream.finish(await stream.assigned(1))
        assert await repairs(server.http) == {Repair.TAKE_FORGOTTEN: 1}


async def test_a_hint_that_redis_lost(server: RunningServer, hints: Any, sql: Sql, redis_namespace: str) -> None:
    job_id = await server.submit(queue="nobody")
    lane = await sql.fetchval("SELECT lane_id FROM jobs WHERE id = $1", job_id)
    await hints.delete(f"{{{redis_namespace}}}:ready:{lane:08x}")

    async with server.worker(queues=["nobody"]) as worker:
        stream = await worker.open()
        await stream.finish(await stream.assigned(1))
        assert await repairs(server.http) == {Repair.HINT_MISSING: 1}


async def test_a_redis_that_comes_back_empty(server: RunningServer, hints: Any, redis_namespace: str) -> None:
    await hints.delete(f"{{{redis_namespace}}}:epoch")

    async with server.worker() as worker:
        stream = await worker.open()
        await server.submit()
        await stream.finish(await stream.assigned(1))
        assert await repairs(server.http) == {Repair.REDIS_REBUILT: 1}


async def test_an_outbox_row_of_a_server_that_died(server: RunningServer, sql: Sql) -> None:
    async with server.worker(queues=["nobody"]) as worker:
        job_id = await server.submit(queue="nobody")
        entries = outbox.encode([job_id], [await sql.fetchval("SELECT lane_id FROM jobs")], [5], [0])
        await sql.execute(
            "INSERT INTO outbox (server_id, entries, created_at) VALUES (1, $1, now() - interval '1 hour')", entries
        )
        stream = await worker.open()
        await stream.finish(await stream.assigned(1))
        while await sql.fetchval("SELECT count(*) FROM outbox"):
            await stream.none("goodbye", 0.1)
        assert await repairs(server.http) == {Repair.OUTBOX_OF_OTHERS: 1}


async def test_a_submit_whose_answer_is_lost(lossy: LossyPostgres, frail: RunningServer) -> None:
    await frail.submit()
    lossy.lose("INSERT INTO jobs", after_commit=True)

    await frail.submit(idempotency_key="key")

    assert await repairs(frail.http) == {Repair.SUBMIT_UNKNOWN: 1}


async def test_a_claim_whose_answer_is_lost(lossy: LossyPostgres, frail: RunningServer) -> None:
    async with frail.worker() as worker:
        await worker.open()
        lossy.lose("SET state = 'running'", after_commit=True)
        await frail.submit()
        await lossy.cut_now.wait()
        stream = worker.streams[0]
        await stream.assigned(1)

        assert await repairs(frail.http) == {Repair.CLAIM_UNKNOWN: 1}


async def test_a_settlement_whose_answer_is_lost(lossy: LossyPostgres, frail: RunningServer) -> None:
    async with frail.worker() as worker:
        stream = await worker.open()
        await frail.submit()
        jobs = await stream.assigned(1)
        lossy.lose("SET state = 'completed'", after_commit=True)

        await stream.finish(jobs)

        assert await repairs(frail.http) == {Repair.SETTLE_UNKNOWN: 1}


async def test_a_cancel_whose_answer_is_lost(lossy: LossyPostgres, frail: RunningServer) -> None:
    job_id = await frail.submit()
    # Other loops commit too: again, until it is the cancel that is cut.
    while Repair.CANCEL_UNKNOWN not in await repairs(frail.http):
        lossy.lose("COMMIT", after_commit=True)
        await frail.cancel(job_id)

    assert set(await repairs(frail.http)) == {Repair.CANCEL_UNKNOWN}


async def test_a_result_that_postgres_refuses(server: RunningServer, sql: Sql) -> None:
    await sql.execute("ALTER TABLE jobs ADD CHECK (exit_code IS DISTINCT FROM 77)")
    async with server.worker() as worker:
        stream = await worker.open()
        await server.submit()
        await stream.finish(await stream.assigned(1), exit_code=77)

        assert await repairs(server.http) == {Repair.RESULT_REJECTED: 1}


async def test_a_cancel_that_nobody_told(server: RunningServer, sql: Sql) -> None:
    async with server.worker() as worker:
        stream = await worker.open()
        job_id = await server.submit()
        [job] = await stream.assigned(1)
        await sql.execute("UPDATE jobs SET cancel_requested_at = now() - interval '2 s' WHERE id = $1", job_id)

        assert list((await stream.next("cancel")).attempts) == [job.attempt]
        assert await repairs(server.http) == {Repair.CANCEL_TOLD_LATE: 1}
