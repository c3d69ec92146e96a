"""A real worker against a scripted server: beats, leases, and every end of a stream."""

import asyncio
import signal
from pathlib import Path

import grpc
import pytest

from orqestra.v1 import worker_pb2 as pb
from orqestra.worker import connection
from tests.support.fifo import Fifo
from tests.support.worker_peer import PATIENCE_SECONDS, Peer, shell
from tests.support.working import held, worker_process, working

KIB = 1024
Phase = pb.HeldAttempt.Phase


async def test_beats_come_four_times_a_lease(peer: Peer, tmp_path: Path) -> None:
    async with working(peer, tmp_path):
        session = await peer.welcomed(lease_ms=400)
        beats = [await session.receive("beat") for _ in range(4)]

    assert [beat.seq for beat in beats] == [1, 2, 3, 4]
    assert {beat.slots for beat in beats} == {4}


async def test_a_server_that_acknowledges_no_beat_is_left(peer: Peer, tmp_path: Path) -> None:
    async with working(peer, tmp_path):
        first = await peer.session()
        first.answers_beats = False
        await first.welcome(lease_ms=400)

        second = await peer.session()
        hello = await second.welcome()

    assert len(first.slots) >= 2
    assert not hello.held


async def test_a_server_that_takes_connections_and_says_nothing_is_left(
    peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "WELCOME_SECONDS", 0.2)
    connected: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
    mute = await asyncio.start_server(lambda _reader, writer: connected.put_nowait(writer), "127.0.0.1")
    port = mute.sockets[0].getsockname()[1]
    async with mute, working(peer, tmp_path, addresses=(f"127.0.0.1:{port}",)), asyncio.timeout(PATIENCE_SECONDS):
        writers = [await connected.get() for _ in range(3)]
    for writer in writers:
        writer.close()


async def test_nothing_is_started_once_the_lease_may_be_over(peer: Peer, tmp_path: Path, gate: Fifo) -> None:
    proof = tmp_path / "proof"
    async with working(peer, tmp_path, slots=1):
        first = await peer.session()
        await first.welcome()
        job = shell(2, f"touch {proof}")
        await first.assign(shell(1, f"read _ < {gate}"), job)
        await first.receive("assign_ack")
        first.end()
        second = await peer.session()
        hello = await second.receive("hello")
        gate.release()
        # The slot is free now; the job in the queue may belong to another worker.
        await second.send(welcome=pb.Welcome(session_id=8, lease_ms=15_000, protocol=1, revoke=[job.attempt]))
        await second.result(1)
        await second.assign(shell(3, "true"))
        await second.result(3)

    assert held(hello.held) == {1: Phase.PHASE_RUNNING, 2: Phase.PHASE_RUNNING}
    assert not proof.exists()


@pytest.mark.parametrize("ends", [True, False], ids=["and its stream was ended", "and its stream is still there"])
async def test_a_worker_that_was_stopped_starts_nothing_before_it_has_asked(
    peer: Peer, tmp_path: Path, gate: Fifo, *, ends: bool
) -> None:
    proof = tmp_path / "proof"
    async with worker_process(peer.address, "--slots", "1", "--state-dir", str(tmp_path)) as process:
        first = await peer.welcomed(lease_ms=1000)
        waiting = shell(2, f"touch {proof}")
        await first.assign(shell(1, f"read _ < {gate}"), waiting)
        await first.receive("assign_ack")
        first.answers_beats = False
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(1.2)  # longer than the lease: the server has given the job to another worker
        gate.release()
        if ends:
            first.end()
        process.send_signal(signal.SIGCONT)

        second = await peer.session()
        hello = await second.welcome(revoke=(waiting.attempt,))
        ended = await second.result(1)

    # Handed back by then, because it has waited for more than a second, or still held.
    assert held(hello.held).get(2) in (None, Phase.PHASE_RUNNING)
    assert ended.ok
    assert not proof.exists()


@pytest.mark.parametrize("code", [None, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INTERNAL])
async def test_every_end_of_a_stream_leads_to_the_next(
    peer: Peer, tmp_path: Path, code: grpc.StatusCode | None
) -> None:
    async with working(peer, tmp_path):
        (await peer.session()).end(code)
        session = await peer.welcomed()
        await session.assign(shell(1, "true"))
        result = await session.result(1)

    assert result.ok


async def test_a_goodbye_says_how_long_to_stay_away(peer: Peer, tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    async with working(peer, tmp_path):
        first = await peer.welcomed()
        await first.send(goodbye=pb.Goodbye(reason="restart", retry_after_ms=400))
        said = loop.time()
        await peer.session()
        came = loop.time()

    assert came - said >= 0.4


async def test_a_worker_waits_for_a_server_that_is_not_there_yet(peer: Peer, tmp_path: Path) -> None:
    async with Peer.serving() as early:
        address = early.address
    early.address = address
    async with working(early, tmp_path), Peer.serving(address) as late:
        session = await late.welcomed()
        await session.assign(shell(1, "true"))
        result = await session.result(1)

    assert result.ok


async def test_the_next_server_is_tried_when_a_stream_ends(peer: Peer, tmp_path: Path) -> None:
    # given a worker that may work for two servers, and begins with either
    async with Peer.serving() as other, working(peer, tmp_path, addresses=(peer.address, other.address)):
        both = {asyncio.create_task(each.session()) for each in (peer, other)}
        [first], [second] = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        session = first.result()
        hello = await session.welcome()

        # when the stream ends
        session.end()

        # then it comes to the other one, as the same worker
        again = await (await second).welcome()

    assert again.worker_id == hello.worker_id
    assert again.number == hello.number + 1


async def test_a_server_that_is_not_there_is_passed_over(peer: Peer, tmp_path: Path) -> None:
    nobody = "127.0.0.1:1"
    async with working(peer, tmp_path, addresses=(nobody, peer.address, nobody)):
        session = await peer.session()
        await session.welcome()
