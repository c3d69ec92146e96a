"""Streams whose other end does not keep up are ended by one look at all of them."""

import asyncio

import pytest

from orqestra._dispatch import wire
from orqestra.engine.repairs import Repair
from orqestra.rpc.deadlines import Deadlines
from orqestra.rpc.peer import ACK_SECONDS, GOODBYE_SECONDS, Outbound, StreamPeer
from tests.support.clock import ManualClock
from tests.support.engine import Engine

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def write_for_ever() -> None:
    """What a writer does whose other end does not read."""
    await asyncio.Event().wait()


async def test_a_goodbye_that_nobody_reads_ends_the_writer_once_its_time_is_over(engine: Engine) -> None:
    clock = ManualClock()
    deadlines, peer = Deadlines(clock, engine.sessions), StreamPeer(clock)
    session = engine.session(await engine.connect())
    writer = asyncio.create_task(write_for_ever())
    with deadlines.kept(session, peer, writer):
        peer.end("the server stops")
        await clock.advance(GOODBYE_SECONDS)
        await deadlines.run_once()
        assert not writer.cancelling()

        await clock.advance(0.1)
        await deadlines.run_once()

    await asyncio.wait([writer])
    assert writer.cancelled()


async def test_only_the_session_of_a_worker_that_is_late_is_ended_and_counted(engine: Engine) -> None:
    clock = ManualClock()
    deadlines = Deadlines(clock, engine.sessions)
    late, punctual = [engine.session(await engine.connect()) for _ in range(2)]
    late_peer, punctual_peer = StreamPeer(clock), StreamPeer(clock)
    writers = [asyncio.create_task(write_for_ever()) for _ in range(2)]
    before = engine.core.repairs.counts[Repair.WORKER_STUCK]
    with deadlines.kept(late, late_peer, writers[0]), deadlines.kept(punctual, punctual_peer, writers[1]):
        late_peer.written(Outbound(wire.assign(1, b""), 1))
        await clock.advance(ACK_SECONDS + 0.1)

        await deadlines.run_once()
        await deadlines.run_once()

    assert engine.sessions.get(late.id) is None
    assert engine.sessions.get(punctual.id) is punctual
    assert engine.core.repairs.counts[Repair.WORKER_STUCK] == before + 1
    for writer in writers:
        writer.cancel()
