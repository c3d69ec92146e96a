"""Claims: waiting, due, not cancelled, its session open, and within the bytes of a batch. Or nothing."""

import asyncio
from datetime import datetime

import pytest

from orqestra.engine.claims import CLAIMABLE
from orqestra.engine.refill import EARLIEST
from orqestra.model.lifecycle import State
from orqestra.model.retry import RetryPolicy
from orqestra.store.database import Row
from tests.support.engine import Engine, failed, noop, succeeded

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANY_BYTES = bytes(range(256)) + b"\xff\xfe\x00"


async def test_a_claim_gives_what_the_worker_needs_and_raises_the_fence(engine: Engine) -> None:
    worker = await engine.connect()
    job_id = await engine.submit(payload=ANY_BYTES, timeout_ms=7, grace_ms=8)

    [claimed] = await engine.claim(worker, job_id, token=123)

    assert (claimed["id"], claimed["fence"], claimed["token"]) == (job_id, 1, 123)
    assert (claimed["type"], claimed["payload"], claimed["attempt"]) == ("noop", ANY_BYTES, 0)
    assert (claimed["timeout_ms"], claimed["grace_ms"]) == (7, 8)
    row = await engine.job(job_id)
    assert (row["state"], row["fence"], row["token"]) == (State.RUNNING, 1, 123)
    assert (row["session_id"], row["worker_id"]) == (worker.session_id, worker.id)
    assert row["started_at"] >= row["created_at"]


async def test_what_is_early_stays_and_the_look_tells_when_it_is_due(engine: Engine) -> None:
    worker = await engine.connect()
    early = await engine.submit(delay_ms=60_000)

    assert await engine.claim(worker, early) == []

    [seen] = await engine.database.fetch("look_at", ids=[early], claimable=CLAIMABLE)
    assert seen["due_ms"] == pytest.approx((await engine.job(early))["available_at"].timestamp() * 1000, abs=1.01)
    await engine.make_due(early)
    [claimed] = await engine.claim(worker, early)
    assert not (await engine.job(claimed["id"]))["delayed"]


async def test_what_is_not_waiting_is_neither_claimed_nor_looked_at(engine: Engine) -> None:
    worker = await engine.connect()
    taken = await engine.running(worker)
    done = await engine.running(worker)
    broken = await engine.running(worker)
    await engine.settle(succeeded(done), failed(broken))
    cancelled = await engine.submit()
    await engine.cancels.cancel([cancelled])
    ids = [taken["id"], done["id"], broken["id"], cancelled, 2**62]

    assert await engine.claim(worker, *ids) == []
    assert await engine.database.fetch("look_at", ids=ids, claimable=CLAIMABLE) == []
    assert (await engine.job(taken["id"]))["fence"] == 1


async def test_a_retrying_job_is_claimed_once_it_is_due(engine: Engine) -> None:
    worker = await engine.connect()
    first = await engine.running(worker, retries=RetryPolicy(max_retries=1, base_ms=60_000))
    await engine.settle(failed(first))
    await engine.sql("UPDATE jobs SET available_at = now() + interval '1 hour' WHERE id = $1", first["id"])
    assert await engine.claim(worker, first["id"]) == []

    await engine.make_due(first["id"])
    [second] = await engine.claim(worker, first["id"])

    assert (second["fence"], second["attempt"]) == (2, 1)


async def test_nothing_is_claimed_for_a_session_that_is_closed_or_unknown(engine: Engine) -> None:
    worker = await engine.connect()
    job_id = await engine.submit()
    await engine.close(worker)

    assert await engine.claim(worker, job_id) == []
    worker.session_id = 2**62
    assert await engine.claim(worker, job_id) == []
    assert (await engine.job(job_id))["state"] == State.PENDING


async def test_a_batch_is_cut_by_bytes_in_the_order_of_ids(engine: Engine) -> None:
    worker = await engine.connect()
    ids = [await engine.submit(payload=b"x" * 100) for _ in range(5)]

    # The third begins at byte 200, within 250; the fourth does not.
    assert [row["id"] for row in await engine.claim(worker, *reversed(ids), batch_bytes=250)] == ids[:3]
    assert [row["id"] for row in await engine.claim(worker, *ids, batch_bytes=250)] == ids[3:]


async def test_one_larger_than_the_batch_is_claimed_alone(engine: Engine) -> None:
    worker = await engine.connect()
    ids = [await engine.submit(payload=b"x" * 1000) for _ in range(2)]

    assert [row["id"] for row in await engine.claim(worker, *ids, batch_bytes=10)] == ids[:1]


async def test_the_same_hint_twice_is_one_claim(engine: Engine) -> None:
    worker = await engine.connect()
    job_id = await engine.submit()

    assert len(await engine.claim(worker, job_id, job_id)) == 1
    assert (await engine.job(job_id))["fence"] == 1


async def test_a_row_in_other_hands_is_a_lost_race_and_not_a_wait(engine: Engine) -> None:
    worker = await engine.connect()
    held, free = await engine.submit(), await engine.submit()

    async with engine.database.transaction() as statements, asyncio.timeout(5):
        await statements.fetch("lock_jobs", ids=[held])
        claimed = await engine.claim(worker, held, free)

    assert [row["id"] for row in claimed] == [free]


async def test_of_two_servers_that_claim_the_same_exactly_one_gets_each(engine: Engine) -> None:
    workers = [await engine.connect() for _ in range(2)]
    ids = [job_id or 0 for job_id in (await engine.store(*[noop()] * 300)).ids]

    batches = await asyncio.gather(*(engine.claim(worker, *ids) for worker in workers))

    got = [row["id"] for rows in batches for row in rows]
    rest = await engine.claim(workers[0], *ids)
    assert sorted(got + [row["id"] for row in rest]) == ids


async def test_the_peek_has_the_best_claimable_of_each_lane(engine: Engine) -> None:
    worker = await engine.connect()
    low, high, also_high = [await engine.submit(queue="peeked", priority=priority) for priority in (1, 9, 9)]
    due = await engine.submit(queue="peeked", priority=5, delay_ms=60_000)
    await engine.submit(queue="peeked", priority=9, delay_ms=60_000)
    await engine.claim(worker, await engine.submit(queue="peeked", priority=9))
    await engine.cancels.cancel([await engine.submit(queue="peeked", priority=9)])
    await engine.make_due(due)
    lane = (await engine.job(low))["lane_id"]

    rows = await engine.database.fetch("peek_lanes", lane_ids=[lane], per_lane=10)
    best = await engine.database.fetch("peek_lanes", lane_ids=[lane], per_lane=2)

    assert [(row["id"], row["priority"]) for row in rows] == [(high, 9), (also_high, 9), (due, 5), (low, 1)]
    assert [row["id"] for row in best] == [high, also_high]


async def test_the_horizon_has_what_becomes_due_before_it_in_pages(engine: Engine) -> None:
    delays_ms = (60_000, 30_000, 3_600_000, 90_000)
    soon, soonest, later, last = [await engine.submit(queue="horizon", delay_ms=ms) for ms in delays_ms]
    mine = {soon, soonest, later, last}

    async def page(from_at: datetime, size: int) -> list[Row]:
        return await engine.database.fetch("list_delayed", from_at=from_at, horizon_ms=600_000, page=size)

    everything = [row for row in await page(EARLIEST, 1000) if row["id"] in mine]
    assert [row["id"] for row in everything] == [soonest, soon, last]
    for row in everything:
        job = await engine.job(row["id"])
        assert (row["lane_id"], row["priority"], row["available_at"]) == (job["lane_id"], 4, job["available_at"])
        assert 0 <= row["due_ms"] - job["available_at"].timestamp() * 1000 < 1.01
    # A page begins at the last moment of the one before, so that none of that moment is passed over.
    following = await page(everything[1]["available_at"], 2)
    assert [row["id"] for row in following] == [soon, last]
