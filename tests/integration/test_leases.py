"""Leases are renewed whatever else is locked, and their connection has no state that outlives a fault."""

import asyncio
from dataclasses import replace
from itertools import pairwise

import pytest

from orqestra.engine.leases import ANSWERS_AT_ONCE, ANSWERS_SECONDS, BETWEEN_ANSWERS_SECONDS, Leases
from tests.support.clock import ManualClock
from tests.support.databases import bare
from tests.support.engine import Engine, Worker

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def expires(engine: Engine, worker: Worker) -> float:
    """Return when the lease of a worker is over."""
    [row] = await engine.sql(
        "SELECT extract(epoch FROM lease_expires_at)::float8 AS at FROM sessions WHERE id = $1", worker.session_id
    )
    return float(row["at"])


async def test_a_session_row_in_other_hands_does_not_hold_up_the_other_leases(engine: Engine) -> None:
    locked, free = await engine.connect(), await engine.connect()
    before = await expires(engine, free)

    async with bare(engine.database) as connection, connection.transaction(), asyncio.timeout(5):
        await connection.execute("SELECT FROM sessions WHERE id = $1 FOR UPDATE", locked.session_id)
        await engine.leases.run_once()

    assert await expires(engine, free) > before
    assert (len(locked.peer.beats), len(free.peer.beats)) == (0, 1)


async def test_what_could_not_be_renewed_is_renewed_the_next_time_beat_or_no_beat(engine: Engine) -> None:
    worker = await engine.connect()
    before = await expires(engine, worker)
    async with bare(engine.database) as connection, connection.transaction(), asyncio.timeout(5):
        await connection.execute("SELECT FROM sessions WHERE id = $1 FOR UPDATE", worker.session_id)
        await engine.leases.run_once()

    await engine.leases.run_once()

    assert await expires(engine, worker) > before
    assert len(worker.peer.beats) == 1


async def test_a_session_that_postgres_has_forgotten_is_ended(engine: Engine) -> None:
    known, forgotten, taken = [await engine.connect() for _ in range(3)]
    ids = [forgotten.session_id, taken.session_id]
    # What a Postgres that was put back to an older state looks like: one is not there, one is another server's.
    await engine.sql("DELETE FROM sessions WHERE id = $1", ids[0])
    await engine.sql("UPDATE sessions SET server_id = 1, lease_expires_at = now() WHERE id = $1", ids[1])

    await engine.leases.run_once()

    assert [engine.sessions.get(session_id) for session_id in ids] == [None, None]
    assert engine.session(known)
    [row] = await engine.sql("SELECT lease_expires_at < now() AS lapsed FROM sessions WHERE id = $1", ids[1])
    assert row["lapsed"]


async def test_the_end_of_a_stream_spares_another_one_with_its_id(engine: Engine) -> None:
    worker = await engine.connect()
    gone = engine.session(worker)
    await engine.sql("UPDATE sessions SET worker_id = gen_random_uuid() WHERE id = $1", gone.id)

    await engine.sessions.close(gone)

    [row] = await engine.sql("SELECT closed_at FROM sessions WHERE id = $1", gone.id)
    assert row["closed_at"] is None


async def test_others_have_their_turn_between_the_answers_to_many_beats(engine: Engine) -> None:
    workers = await asyncio.gather(*(engine.connect() for _ in range(2 * ANSWERS_AT_ONCE + 1)))
    answered: list[int] = []
    loop = asyncio.get_running_loop()

    def look() -> None:
        """Count in each turn of the loop, as long as there is something to come."""
        answered.append(sum(len(worker.peer.beats) for worker in workers))
        if answered[-1] < len(workers) and not renewing.done():
            loop.call_soon(look)

    renewing = asyncio.create_task(engine.leases.run_once())
    loop.call_soon(look)
    await renewing
    look()

    steps = [after - before for before, after in pairwise(answered)]
    assert max(steps) == ANSWERS_AT_ONCE


@pytest.mark.parametrize("late_seconds", [0.0, ANSWERS_SECONDS], ids=["in time", "late"])
async def test_answers_are_spread_and_what_is_late_is_not_put_off(engine: Engine, late_seconds: float) -> None:
    await engine.leases.run_once()
    clock = ManualClock()
    leases = Leases(replace(engine.core, clock=clock), engine.database, engine.sessions)
    workers = [await engine.connect() for _ in range(3 * ANSWERS_AT_ONCE)]

    renewing = asyncio.create_task(leases.run_once())

    assert await clock.waiting() == pytest.approx((BETWEEN_ANSWERS_SECONDS,))
    assert sum(len(worker.peer.beats) for worker in workers) == ANSWERS_AT_ONCE
    await clock.advance(BETWEEN_ANSWERS_SECONDS + late_seconds)
    if not late_seconds:
        assert await clock.waiting() == pytest.approx((BETWEEN_ANSWERS_SECONDS,))
        assert sum(len(worker.peer.beats) for worker in workers) == 2 * ANSWERS_AT_ONCE
        await clock.advance(BETWEEN_ANSWERS_SECONDS)
    async with asyncio.timeout(5):
        await renewing
    assert [len(worker.peer.beats) for worker in workers] == [1] * len(workers)
