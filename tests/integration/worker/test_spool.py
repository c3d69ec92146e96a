"""A real worker against a scripted server: what it owes survives it, and a disk that takes nothing does not stop it."""

import asyncio
import os
import resource
import signal
from pathlib import Path

import pytest

from orqestra.v1 import worker_pb2 as pb
from tests.support.fifo import Fifo
from tests.support.freezing import FrozenThread
from tests.support.supervising import end_supervisors, supervisor_pid
from tests.support.worker_peer import PATIENCE_SECONDS, Peer, Session, shell
from tests.support.working import held, worker_process, working

FINISHED = pb.HeldAttempt.PHASE_FINISHED
OUTPUT_BYTES = 100_000
KILLS = 2


async def killed(process: asyncio.subprocess.Process, tmp_path: Path, supervisor_too: bool) -> None:
    """End a worker as a kill does, and maybe what runs its commands."""
    process.kill()
    await process.communicate()
    if supervisor_too:
        end_supervisors(tmp_path)


async def stored_output(session: Session) -> bytes:
    """Take the two pieces of the output, and say that they are stored."""
    data = b""
    for _ in range(2):
        piece = await session.receive("store_output")
        data += piece.data
        ack = pb.OutputAck(attempt=piece.attempt, stream=piece.stream, offset=piece.offset, stored=True)
        await session.send(output_ack=ack)
    return data


@pytest.mark.parametrize("supervisor_too", [False, True], ids=["alone", "with its supervisor"])
async def test_what_a_killed_worker_owes_is_delivered_by_the_next(
    peer: Peer, tmp_path: Path, *, supervisor_too: bool
) -> None:
    # given a job with much output, whose result was sent and not answered
    state = ("--state-dir", str(tmp_path))
    job = shell(1, f"head -c {OUTPUT_BYTES} /dev/urandom; exit 3")
    async with worker_process(peer.address, *state) as process:
        session = await peer.session()
        first = await session.welcome()
        await session.assign(job)
        output = await stored_output(session)
        result = (await session.receive("results")).results[0]
        await killed(process, tmp_path, supervisor_too)

    # when the worker is killed, again and again, before the answer arrives
    for _ in range(KILLS):
        async with worker_process(peer.address, *state) as process:
            session = await peer.session()
            hello = await session.welcome()
            again = await stored_output(session)
            results = (await session.receive("results")).results
            await killed(process, tmp_path, supervisor_too)

        # then each of its successors tells the same
        assert (hello.worker_id, held(hello.held)) == (first.worker_id, {1: FINISHED})
        assert (hello.incarnation == first.incarnation) is not supervisor_too
        assert again == output
        assert list(results) == [result]
    assert (len(output), result.exit_code) == (OUTPUT_BYTES, 3)

    # when it is answered, then nothing is left
    async with worker_process(peer.address, *state) as process:
        session = await peer.welcomed()
        await stored_output(session)
        await session.result(1)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await process.communicate()
    assert process.returncode == 0
    assert [each.name for each in (tmp_path / "worker-0" / "spool").iterdir()] == ["aside"]


async def test_what_a_drain_could_not_deliver_is_delivered_at_the_next_start(peer: Peer, tmp_path: Path) -> None:
    async with working(peer, tmp_path, drain_seconds=0.3) as exit_code:
        session = await peer.welcomed()
        await session.assign(shell(1, "echo kept"))
        await session.receive("results")
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await exit_code == 1

    async with working(peer, tmp_path):
        session = await peer.session()
        hello = await session.welcome()
        result = await session.result(1)

    assert held(hello.held) == {1: FINISHED}
    assert result.stdout == b"kept\n"


@pytest.mark.parametrize(
    ("verdict", "kept_aside"),
    [
        (pb.ResultAcks.VERDICT_ACCEPTED, 0),
        (pb.ResultAcks.VERDICT_DUPLICATE, 0),
        (pb.ResultAcks.VERDICT_STALE, 0),
        (pb.ResultAcks.VERDICT_UNKNOWN, 1),
    ],
)
async def test_every_answer_ends_the_duty(
    peer: Peer, tmp_path: Path, verdict: pb.ResultAcks.Verdict, kept_aside: int
) -> None:
    job = shell(1, "true")
    async with working(peer, tmp_path):
        session = await peer.welcomed()
        await session.assign(job)
        await session.receive("results")
        ack = pb.ResultAcks.Ack(attempt=job.attempt, verdict=verdict)
        await session.send(result_acks=pb.ResultAcks(acks=[ack]))
        await session.send(list_held=pb.ListHeld(seq=1))
        answer = await session.receive("held")
    async with working(peer, tmp_path):
        hello = await (await peer.session()).welcome()

    assert (held(answer.held), held(hello.held)) == ({}, {})
    aside = tmp_path / "state" / "worker-0" / "spool" / "aside"
    assert len(list(aside.iterdir())) == kept_aside


async def test_a_welcome_may_revoke_what_was_spooled(peer: Peer, tmp_path: Path) -> None:
    job = shell(1, "true")
    async with working(peer, tmp_path, drain_seconds=0):
        session = await peer.welcomed()
        await session.assign(job)
        await session.receive("results")
    async with working(peer, tmp_path):
        session = await peer.session()
        hello = await session.welcome(revoke=(job.attempt,))
        await session.send(list_held=pb.ListHeld(seq=1))
        answer = await session.receive("held")

    assert (held(hello.held), held(answer.held)) == ({1: FINISHED}, {})
    assert session.waiting("results") == 0


async def test_a_disk_that_takes_nothing_costs_slots_and_no_result(peer: Peer, tmp_path: Path) -> None:
    async with worker_process(peer.address, "--state-dir", str(tmp_path), "--slots", "2") as process:
        # given a worker that must not write into files any more, with a job
        session = await peer.welcomed(lease_ms=2000)
        await session.assign(shell(1, "echo before"))
        await session.result(1)
        supervisor = supervisor_pid(tmp_path / "worker-0")
        _, most = resource.prlimit(supervisor, resource.RLIMIT_FSIZE)
        resource.prlimit(supervisor, resource.RLIMIT_FSIZE, (0, most))
        await session.assign(shell(2, "echo meanwhile"))

        # then the result is told all the same, and that no more jobs are wanted
        unwell = await session.receive("beat", lambda beat: beat.slots == 0)
        meanwhile = await session.result(2)

        # and when it may write again, it wants jobs again
        resource.prlimit(supervisor, resource.RLIMIT_FSIZE, (most, most))
        await session.receive("beat", lambda beat: beat.slots == 2 and beat.seq > unwell.seq)
        await session.assign(shell(3, "echo after"))
        after = await session.result(3)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_SECONDS):
            _, log = await process.communicate()

    assert unwell.health.startswith("spool: File too large")
    assert (meanwhile.stdout, after.stdout) == (b"meanwhile\n", b"after\n")
    assert process.returncode == 0
    assert log.count(b"not well") == 1
    assert log.count(b"well again") == 1


async def test_a_disk_that_does_not_answer_costs_slots_and_no_result(peer: Peer, tmp_path: Path) -> None:
    async with worker_process(peer.address, "--state-dir", str(tmp_path), "--slots", "2"):
        # given a worker whose disk hangs, with a job
        session = await peer.welcomed(lease_ms=2000)
        with FrozenThread(supervisor_pid(tmp_path / "worker-0"), "spool"):
            await session.assign(shell(1, "echo meanwhile"))

            # then the result is told all the same, and that no more jobs are wanted
            unwell = await session.receive("beat", lambda beat: beat.slots == 0)
            result = await session.result(1)

        # and when the disk answers, it wants jobs again
        await session.receive("beat", lambda beat: beat.slots == 2 and beat.seq > unwell.seq)

    assert unwell.health == "spool: the disk does not answer"
    assert result.stdout == b"meanwhile\n"


@pytest.mark.parametrize("then", ["true", "sleep 30"])
async def test_a_drain_tells_what_the_disk_has_not_taken_and_ends(
    peer: Peer, tmp_path: Path, started: Fifo, then: str
) -> None:
    options = ("--state-dir", str(tmp_path), "--drain-seconds", "0.3")
    async with worker_process(peer.address, *options) as process:
        # given a job that ends, by itself or by the drain, while the disk hangs
        session = await peer.welcomed()
        with FrozenThread(supervisor_pid(tmp_path / "worker-0"), "spool") as disk:
            await session.assign(shell(1, f"echo told; echo > {started}; {then}"))
            await started.line()

            # when the worker is told to end, then it tells the result and does not wait for the disk
            process.send_signal(signal.SIGTERM)
            result = await session.result(1)
            await disk.ended()
            async with asyncio.timeout(PATIENCE_SECONDS):
                await process.communicate()

    assert result.stdout == b"told\n"
    assert process.returncode == 0
