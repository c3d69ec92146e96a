"""Streams whose other end does not keep up are ended by one look at all of them."""

import asyncio

import pytest

from orqestra._dispatch import wire
from orqestra.engine.repairs import Repair
from orqestra.rpc.deadlines import LOOK_SECONDS, Deadlines
from orqestra.rpc.peer import ACK_SECONDS, GOODBYE_SECONDS, Outbound, StreamPeer
from tests.support.clock import ManualClock
from tests.support.engine import Engine

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def write_for_ever() -> None:
    """What a writer does whose other end does not read."""
    await asyncio.Event().wait()


def send_an_assign(peer: StreamPeer) -> None:
    """Let a first Assign be written now."""
    peer.assign(b"")
    peer.written(Outbound(wire.assign(1, b""), 1))


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
        send_an_assign(late_peer)
        await clock.advance(ACK_SECONDS + 0.1)

        await deadlines.run_once()
        await deadlines.run_once()

    assert engine.sessions.get(late.id) is None
    assert engine.sessions.get(punctual.id) is punctual
    assert engine.core.repairs.counts[Repair.WORKER_STUCK] == before + 1
    for writer in writers:
        writer.cancel()


async def test_a_server_that_stood_still_reads_before_it_judges(engine: Engine) -> None:
    clock = ManualClock()
    deadlines, peer = Deadlines(clock, engine.sessions), StreamPeer(clock)
    session = engine.session(await engine.connect())
    writer = asyncio.create_task(write_for_ever())
    with deadlines.kept(session, peer, writer):
        send_an_assign(peer)
        for _ in range(3):
            await clock.advance(ACK_SECONDS + 0.1)
            await deadlines.run_once()
        # What the worker had sent in time is read now.
        peer.acknowledge(1)
        await deadlines.run_once()

    assert engine.sessions.get(session.id) is session
    writer.cancel()


async def test_a_worker_is_late_when_the_next_look_finds_it_late_too(engine: Engine) -> None:
    clock = ManualClock()
    deadlines, peer = Deadlines(clock, engine.sessions), StreamPeer(clock)
    session = engine.session(await engine.connect())
    writer = asyncio.create_task(write_for_ever())
    looks = 0
    with deadlines.kept(session, peer, writer):
        send_an_assign(peer)
        while engine.sessions.get(session.id) is session:
            await clock.advance(LOOK_SECONDS)
            await deadlines.run_once()
            looks += 1

    assert ACK_SECONDS < looks * LOOK_SECONDS <= ACK_SECONDS + 2 * LOOK_SECONDS
    writer.cancel()
