"""Greetings that come at once are stored together, and none of them suffers for another."""

import asyncio
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from orqestra.engine.hellos import BATCH, Greeting, Hellos
from orqestra.model.errors import StorageUnavailable
from orqestra.model.report import AttemptRef
from tests.support.databases import bare
from tests.support.engine import LEASE_MS, Engine, Worker, ref

pytestmark = pytest.mark.asyncio(loop_scope="module")

SOON_SECONDS = 5.0


def greeting(worker: Worker, held: tuple[AttemptRef, ...] = (), **about: Any) -> Greeting:
    """What a worker says on its next stream."""
    worker.number += 1
    given = {"name": "w", "slots": 1, "queues": ("default",), "labels": (), "finished": (), **about}
    return Greeting(worker_id=worker.id, incarnation=worker.incarnation, number=worker.number, held=held, **given)


async def test_greetings_that_come_at_once_are_one_transaction_each_with_what_is_its_own(engine: Engine) -> None:
    workers = [await engine.connect() for _ in range(BATCH)]
    rows = [await engine.running(worker) for worker in workers]
    greetings = [
        greeting(worker, (ref(row),), name=f"worker {at}", slots=at, queues=("a", f"q{at}"), labels=('k="v, w"', "ü=1"))
        for at, (worker, row) in enumerate(zip(workers, rows, strict=True))
    ]

    stored = await asyncio.gather(*(engine.hellos.store(each) for each in greetings))

    kept = [each.kept for each in stored if each is not None]
    assert kept == [frozenset({(row["id"], row["fence"])}) for row in rows]
    ids = [each.session_id for each in stored if each is not None]
    sessions = await engine.sql(
        "SELECT worker_id, name, slots, queues, labels, xmin::text AS transaction FROM sessions WHERE id = ANY($1) "
        "ORDER BY array_position($1, id)",
        ids,
    )
    assert len({row["transaction"] for row in sessions}) == 1
    told = [(row["worker_id"], row["name"], row["slots"], row["queues"], row["labels"]) for row in sessions]
    assert told == [(each.worker_id, each.name, each.slots, [*each.queues], [*each.labels]) for each in greetings]
    for row, session_id in zip(rows, ids, strict=True):
        assert (await engine.job(row["id"]))["session_id"] == session_id


async def test_of_one_worker_the_later_stream_stays_however_close_they_come(engine: Engine) -> None:
    worker = Worker()
    first, second = greeting(worker), greeting(worker)

    opened = await asyncio.gather(engine.hellos.store(first), engine.hellos.store(second))

    assert None not in opened
    rows = await engine.sql(
        "SELECT number, closed_reason FROM sessions WHERE worker_id = $1 ORDER BY number", worker.id
    )
    assert [tuple(row) for row in rows] == [(1, "replaced"), (2, None)]


async def test_a_greeting_that_waits_for_a_job_in_other_hands_holds_up_no_other(engine: Engine) -> None:
    blocked, free = await engine.connect(), await engine.connect()
    row = await engine.running(blocked)
    async with asyncio.timeout(SOON_SECONDS):
        async with bare(engine.database) as connection, connection.transaction():
            await connection.execute("SELECT FROM jobs WHERE id = $1 FOR UPDATE", row["id"])
            waiting = asyncio.create_task(engine.hellos.store(greeting(blocked, (ref(row),))))

            together = await engine.hellos.store(greeting(free))
            later = await engine.hellos.store(greeting(free))

            assert together is not None
            assert later is not None
            assert not waiting.done()
        stored = await waiting

    assert stored is not None
    assert stored.kept == {(row["id"], row["fence"])}


async def test_a_greeting_that_postgres_refuses_fails_alone(engine: Engine) -> None:
    good, bad = Worker(), Worker()

    stored, refused = await asyncio.gather(
        engine.hellos.store(greeting(good)),
        engine.hellos.store(greeting(bad, name="not a text: \0")),
        return_exceptions=True,
    )

    assert isinstance(refused, asyncpg.PostgresError)
    assert not isinstance(stored, BaseException | None)


async def test_a_greeting_whose_stream_is_gone_opens_nothing(engine: Engine) -> None:
    gone, there = Worker(), Worker()
    leaving = asyncio.create_task(engine.hellos.store(greeting(gone)))
    staying = asyncio.create_task(engine.hellos.store(greeting(there)))
    await asyncio.sleep(0)  # both wait now, and the loop has not had its turn
    leaving.cancel()

    await staying

    rows = await engine.sql("SELECT worker_id FROM sessions WHERE worker_id = ANY($1)", [gone.id, there.id])
    assert [row["worker_id"] for row in rows] == [there.id]


async def test_a_server_that_stops_refuses_greetings(engine: Engine) -> None:
    hellos = Hellos(engine.core, server_name="test", lease_ms=LEASE_MS)
    await hellos.start()
    await hellos.stop()

    with pytest.raises(StorageUnavailable):
        await hellos.store(greeting(Worker(id=uuid4())))
