"""A worker's lane of live output: opened when it is needed, apart from the rest, within what is granted."""

import asyncio
from pathlib import Path

import pytest

from orqestra.v1 import worker_pb2 as pb
from orqestra.worker import logs
from tests.support.fifo import Fifo
from tests.support.worker_peer import Peer, Session, shell
from tests.support.working import working

KEY = b"a key of this session"
PLENTY = 1 << 30
PIECE = 65536


def follow(job: pb.Assignment, stdout_offset: int = 0, *, stop: bool = False) -> pb.Follow:
    return pb.Follow(attempt=job.attempt, stdout_offset=stdout_offset, stop=stop)


async def given(peer: Peer, job: pb.Assignment) -> Session:
    """Give a job to a worker that has just connected."""
    session = await peer.welcomed(logs_key=KEY)
    await session.assign(job)
    return session


async def test_a_lane_is_opened_by_the_first_wish_on_a_connection_of_its_own(
    peer: Peer, tmp_path: Path, gate: Fifo
) -> None:
    async with working(peer, tmp_path):
        job = shell(1, f"echo one; read _ < {gate}; echo two")
        session = await given(peer, job)
        await session.receive("assign_ack")
        before = peer.lanes.qsize()
        await session.send(follow=follow(job))
        lane = await peer.lane()
        hello = await lane.receive()

        # nothing before it is granted
        await lane.none(0.2)
        await lane.send(credit=pb.Credit(bytes=PLENTY))
        first = await lane.output()
        await lane.send(follow=follow(job, 2))
        again = await lane.output()
        gate.release()
        last = await lane.output()
        await session.result(1)

    assert before == 0
    assert hello == pb.LogsUp(hello=pb.LogsHello(session_id=7, key=KEY))
    assert (first, again, last) == ((0, b"one\n"), (2, b"e\n"), (4, b"two\n"))
    assert lane.peer != session.peer
    assert session.waiting("live_output") == 0


async def test_no_more_is_sent_than_was_granted(peer: Peer, tmp_path: Path, started: Fifo, gate: Fifo) -> None:
    async with working(peer, tmp_path):
        job = shell(1, f"head -c 200000 /dev/zero; echo > {started}; read _ < {gate}")
        session = await given(peer, job)
        # All but what is in the pipe is kept by then, so that it comes in pieces of full length.
        await started.line()
        await session.send(follow=follow(job))
        lane = await peer.lane()
        await lane.receive()
        await lane.send(credit=pb.Credit(bytes=100_000))

        assert await lane.output() == (0, bytes(PIECE))
        await lane.none(0.2)
        await lane.send(credit=pb.Credit(bytes=PIECE))
        assert await lane.output() == (PIECE, bytes(PIECE))

        # and what is to be stored needs none of it
        gate.release()
        assert (await session.receive("store_output")).offset == 0


async def test_a_lane_that_breaks_is_opened_again_while_it_is_needed(peer: Peer, tmp_path: Path, gate: Fifo) -> None:
    async with working(peer, tmp_path):
        job = shell(1, f"echo one; read _ < {gate}")
        session = await given(peer, job)
        await session.send(follow=follow(job))
        first = await peer.lane()
        await first.receive()

        first.ending.set()
        second = await peer.lane()
        await second.receive()
        await second.send(follow=follow(job))
        await second.send(credit=pb.Credit(bytes=PLENTY))

        assert await second.output() == (0, b"one\n")
        gate.release()
        await session.result(1)


async def test_a_lane_that_nobody_needs_is_closed_and_opened_again(
    peer: Peer, tmp_path: Path, gate: Fifo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "IDLE_SECONDS", 0.1)
    async with working(peer, tmp_path):
        job = shell(1, f"echo one; read _ < {gate}")
        session = await given(peer, job)
        await session.send(follow=follow(job))
        first = await peer.lane()
        await first.receive()
        await first.send(follow=follow(job, stop=True))

        while await first.receive() is not None:
            pass
        first.ending.set()
        await session.send(follow=follow(job))
        await (await peer.lane()).receive()
        gate.release()
        await session.result(1)


async def test_a_lane_ends_with_its_session(peer: Peer, tmp_path: Path, gate: Fifo) -> None:
    async with working(peer, tmp_path):
        job = shell(1, f"read _ < {gate}; echo one")
        session = await given(peer, job)
        await session.send(follow=follow(job))
        lane = await peer.lane()
        session.end()

        async with asyncio.timeout(5):
            await lane.over.wait()
        next_session = await peer.welcomed(logs_key=KEY)
        gate.release()
        assert (await next_session.result(1)).stdout == b"one\n"
        assert peer.lanes.empty()
