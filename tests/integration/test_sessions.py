"""Sessions: one stream of one worker each. A Hello takes over what the worker holds and gives back the rest."""

import asyncio
from uuid import uuid4

import pytest

from orqestra.engine.expiry import STORM_SESSIONS
from orqestra.engine.hellos import Greeting
from orqestra.model.lifecycle import State
from orqestra.model.report import AttemptRef, Verdict
from tests.support.engine import Engine, Peer, Worker, ref, succeeded

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def closed_reason(engine: Engine, session_id: int) -> str | None:
    [row] = await engine.sql("SELECT closed_reason FROM sessions WHERE id = $1", session_id)
    reason: str | None = row["closed_reason"]
    return reason


async def expire(engine: Engine, *workers: Worker) -> None:
    """Let leases run out."""
    ids = [worker.session_id for worker in workers]
    await engine.sql("UPDATE sessions SET lease_expires_at = now() - interval '1 second' WHERE id = ANY($1)", ids)


def greeting(worker: Worker, number: int) -> Greeting:
    """What a worker says when it holds nothing."""
    return Greeting(
        worker_id=worker.id,
        incarnation=worker.incarnation,
        number=number,
        name="w",
        slots=1,
        queues=("default",),
        labels=(),
        held=(),
        finished=(),
    )


# Hello


async def test_a_hello_moves_what_is_held_and_finished_and_nothing_else(engine: Engine) -> None:
    worker, stranger = await engine.connect(), await engine.connect()
    held, finished, forgotten = [await engine.running(worker) for _ in range(3)]
    foreign = await engine.running(stranger)
    old = worker.session_id
    made_up = AttemptRef(2**62, 1, 1)
    forged = AttemptRef(forgotten["id"], forgotten["fence"], 1)

    await engine.connect(worker, held=(ref(held), ref(foreign), made_up, forged), finished=(ref(finished),))

    assert worker.revoked == (ref(foreign), made_up, forged)
    session = {row["id"]: (await engine.job(row["id"]))["session_id"] for row in (held, finished, forgotten, foreign)}
    assert session == {
        held["id"]: worker.session_id,
        finished["id"]: worker.session_id,
        forgotten["id"]: old,
        foreign["id"]: stranger.session_id,
    }
    assert (await engine.job(held["id"]))["fence"] == held["fence"]
    await engine.sweep()
    assert (await engine.job(forgotten["id"]))["state"] == State.PENDING
    assert (await engine.job(held["id"]))["state"] == State.RUNNING


async def test_a_moved_job_is_settled_on_the_new_stream_only(engine: Engine) -> None:
    worker = await engine.connect()
    row = await engine.running(worker)
    await engine.connect(worker, held=(ref(row),))

    assert await engine.settle(succeeded(row)) == []
    assert await engine.settle(succeeded(row, session_id=worker.session_id)) == [Verdict.ACCEPTED]


async def test_a_hello_takes_over_from_a_session_that_was_closed_and_not_swept_yet(engine: Engine) -> None:
    worker = await engine.connect()
    row = await engine.running(worker)
    await engine.close(worker)

    await engine.connect(worker, held=(ref(row),))
    await engine.sweep()

    job = await engine.job(row["id"])
    assert (worker.revoked, job["state"], job["session_id"]) == ((), State.RUNNING, worker.session_id)


async def test_what_was_swept_before_the_hello_is_revoked(engine: Engine) -> None:
    worker = await engine.connect()
    row = await engine.running(worker)
    await engine.close(worker)
    await engine.sweep()

    await engine.connect(worker, held=(ref(row),))

    assert worker.revoked == (ref(row),)
    assert (await engine.job(row["id"]))["state"] == State.PENDING


async def test_a_new_stream_replaces_and_a_new_incarnation_restarts(engine: Engine) -> None:
    worker = await engine.connect()
    first, first_peer = worker.session_id, worker.peer
    second = (await engine.connect(worker)).session_id
    worker.incarnation = uuid4()
    await engine.connect(worker)

    assert await closed_reason(engine, first) == "replaced"
    assert await closed_reason(engine, second) == "restarted"
    assert await closed_reason(engine, worker.session_id) is None
    assert first_peer.ended == ["replaced by a newer stream of its worker"]
    assert engine.sessions.get(first) is None


async def test_an_older_or_equal_number_is_refused(engine: Engine) -> None:
    worker = await engine.connect()
    worker = await engine.connect(worker)

    assert await engine.sessions.open(greeting(worker, 2), Peer()) is None
    assert await engine.sessions.open(greeting(worker, 1), Peer()) is None
    assert await closed_reason(engine, worker.session_id) is None
    await engine.close(worker)
    assert await engine.sessions.open(greeting(worker, 2), Peer()) is None


async def test_of_two_hellos_at_once_the_newer_one_stays(engine: Engine) -> None:
    for _ in range(5):
        worker = Worker()

        opened = await asyncio.gather(*(engine.sessions.open(greeting(worker, n), Peer()) for n in (3, 1, 2)))

        rows = await engine.sql("SELECT number FROM sessions WHERE worker_id = $1 AND closed_at IS NULL", worker.id)
        assert [row["number"] for row in rows] == [3]
        assert opened[0] is not None


# Leases


async def test_a_renewal_answers_the_beat_it_covers(engine: Engine) -> None:
    worker = await engine.connect()
    session = engine.session(worker)
    session.heard, session.beat = True, 5
    [before] = await engine.sql("SELECT lease_expires_at FROM sessions WHERE id = $1", worker.session_id)

    await engine.leases.run_once()

    [after] = await engine.sql("SELECT lease_expires_at FROM sessions WHERE id = $1", worker.session_id)
    assert after["lease_expires_at"] > before["lease_expires_at"]
    assert worker.peer.beats == [5]
    assert not session.heard


async def test_a_session_that_was_not_heard_from_is_not_renewed(engine: Engine) -> None:
    worker = await engine.connect()
    engine.session(worker).heard = False

    await engine.leases.run_once()

    assert worker.peer.beats == []


async def test_a_session_that_was_closed_elsewhere_ends_at_the_next_renewal(engine: Engine) -> None:
    worker = await engine.connect()
    await engine.close(worker)

    await engine.leases.run_once()

    assert len(worker.peer.ended) == 1
    assert engine.sessions.get(worker.session_id) is None


async def test_only_leases_that_are_over_are_closed(engine: Engine) -> None:
    lapsed, alive = await engine.connect(), await engine.connect()
    await expire(engine, lapsed)

    rows = await engine.database.fetch("close_lapsed")

    assert [row["id"] for row in rows] == [lapsed.session_id]
    assert await closed_reason(engine, lapsed.session_id) == "lapsed"
    assert await closed_reason(engine, alive.session_id) is None


async def test_nothing_is_closed_before_a_lease_of_steady_renewals(engine: Engine) -> None:
    worker = await engine.connect()
    engine.session(worker).heard = False
    await expire(engine, worker)
    await engine.leases.run_once()

    await engine.expiry.run_once()

    assert await closed_reason(engine, worker.session_id) is None


async def test_many_that_lapse_at_once_are_counted_as_a_storm(engine: Engine) -> None:
    await engine.sql("UPDATE sessions SET closed_at = now(), closed_reason = 'ended' WHERE closed_at IS NULL")
    workers = [await engine.connect() for _ in range(STORM_SESSIONS + 1)]
    await expire(engine, *workers[1:])

    row = await engine.database.fetch_one("count_lapsed")

    assert row is not None
    assert (row["lapsed"], row["open"]) == (STORM_SESSIONS, STORM_SESSIONS + 1)


# The end of a stream


async def test_a_stream_that_ends_with_nothing_running_closes_its_session(engine: Engine) -> None:
    idle, busy = await engine.connect(), await engine.connect()
    await engine.running(busy)

    await engine.sessions.close(engine.session(idle))
    await engine.sessions.close(engine.session(busy))

    assert await closed_reason(engine, idle.session_id) == "ended"
    assert await closed_reason(engine, busy.session_id) is None


async def test_old_sessions_go_unless_a_running_job_names_them(engine: Engine) -> None:
    old, named, recent = await engine.connect(), await engine.connect(), await engine.connect()
    await engine.running(named)
    for worker in (old, named, recent):
        await engine.close(worker)
    ids = [old.session_id, named.session_id]
    await engine.sql("UPDATE sessions SET closed_at = now() - interval '25 hours' WHERE id = ANY($1)", ids)

    await engine.database.fetch("delete_sessions", at_most=1000)

    left = await engine.sql("SELECT id FROM sessions WHERE id = ANY($1)", [*ids, recent.session_id])
    assert {row["id"] for row in left} == {named.session_id, recent.session_id}
