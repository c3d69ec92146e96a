"""A real worker against a scripted server: drains, signals and the command line."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from orqestra.v1 import worker_pb2 as pb
from tests.support.fifo import Fifo
from tests.support.worker_peer import PATIENCE_SECONDS, Peer, shell
from tests.support.working import worker_process, working

KIB = 1024
Phase = pb.HeldAttempt.Phase


@pytest.mark.everywhere
async def test_draining_hands_back_what_waits_and_delivers_what_runs(
    peer: Peer, tmp_path: Path, started: Fifo, gate: Fifo
) -> None:
    async with working(peer, tmp_path, slots=1) as exit_code:
        session = await peer.welcomed(lease_ms=2000)
        await session.assign(shell(1, f"echo > {started}; read _ < {gate}; echo done"), shell(2, "true"))
        await started.line()
        os.kill(os.getpid(), signal.SIGTERM)

        nack = await session.receive("assign_nack")
        await session.receive("beat", lambda beat: beat.slots == 0)
        await session.assign(shell(3, "true"))
        late = await session.receive("assign_nack")
        # It goes on beating while the command runs.
        await session.receive("beat", lambda beat: beat.slots == 0)
        gate.release()
        result = await session.result(1)
        async with asyncio.timeout(PATIENCE_SECONDS):
            code = await exit_code

    assert [each.job_id for each in nack.attempts] == [2]
    assert [each.job_id for each in late.attempts] == [3]
    assert nack.reason == "draining"
    assert (result.ok, result.stdout) == (True, b"done\n")
    assert code == 0


@pytest.mark.everywhere
async def test_after_the_drain_time_commands_are_ended_and_handed_back(
    peer: Peer, tmp_path: Path, started: Fifo
) -> None:
    async with working(peer, tmp_path, drain_seconds=0.1) as exit_code:
        session = await peer.welcomed()
        await session.assign(shell(1, f"echo > {started}; sleep 30"))
        await started.line()
        os.kill(os.getpid(), signal.SIGTERM)
        result = await session.result(1)
        async with asyncio.timeout(PATIENCE_SECONDS):
            code = await exit_code

    assert (result.ok, result.reason) == (False, "returned")
    assert code == 0


@pytest.mark.everywhere
async def test_a_second_signal_does_not_wait(peer: Peer, tmp_path: Path, started: Fifo) -> None:
    async with working(peer, tmp_path, drain_seconds=600) as exit_code:
        session = await peer.welcomed()
        await session.assign(shell(1, f"trap '' TERM; echo > {started}; while :; do sleep 0.1; done"))
        await started.line()
        os.kill(os.getpid(), signal.SIGTERM)
        await session.receive("beat", lambda beat: beat.slots == 0)
        os.kill(os.getpid(), signal.SIGTERM)
        result = await session.result(1)
        async with asyncio.timeout(PATIENCE_SECONDS):
            code = await exit_code

    assert (result.ok, result.reason) == (False, "returned")
    assert code == 0


@pytest.mark.everywhere
async def test_results_that_nobody_takes_make_the_worker_fail(peer: Peer, tmp_path: Path) -> None:
    async with working(peer, tmp_path, drain_seconds=0.3) as exit_code:
        session = await peer.welcomed()
        await session.assign(shell(1, "true"))
        await session.receive("results")
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_SECONDS):
            code = await exit_code

    assert code == 1


async def test_two_workers_share_a_state_directory_and_keep_their_identities(peer: Peer, tmp_path: Path) -> None:
    async with working(peer, tmp_path):
        one = await (await peer.session()).welcome()
        async with working(peer, tmp_path):
            two = await (await peer.session()).welcome()
    async with working(peer, tmp_path):
        again = await (await peer.session()).welcome()

    assert one.worker_id != two.worker_id
    assert again.worker_id == one.worker_id
    assert again.incarnation != one.incarnation
    assert again.number > one.number


async def test_the_command_works_and_ends_on_sigterm(peer: Peer, tmp_path: Path) -> None:
    options = ("--slots", "2", "--queue", "a", "--queue", "b", "--label", "zone=1")
    async with worker_process(peer.address, *options, "--state-dir", str(tmp_path)) as process:
        session = await peer.session()
        hello = await session.welcome()
        await session.assign(shell(1, "pwd"))
        result = await session.result(1)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_SECONDS):
            _, log = await process.communicate()

    assert process.returncode == 0, log.decode()
    assert (hello.slots, list(hello.queues), dict(hello.labels)) == (2, ["a", "b"], {"zone": "1"})
    assert result.stdout == f"{Path.cwd()}\n".encode()
    assert b"worker ready" in log


async def test_a_worker_without_a_server_says_so_and_ends_when_told(tmp_path: Path) -> None:
    async with Peer.serving() as gone:
        pass
    async with worker_process(gone.address, "--state-dir", str(tmp_path)) as process:
        assert process.stderr is not None
        log = b""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while b"no session" not in log:
                log += await process.stderr.readline()
            process.send_signal(signal.SIGTERM)
            log += (await process.communicate())[1]

    assert process.returncode == 0, log.decode()
    assert log.count(b"no session") == 1
    assert gone.address.encode() in log
    assert b"GRPC_ADDR" in log


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--slots", "0"), "--slots"),
        (("--queue", "a b"), "--queue"),
        (("--label", "zone"), "--label"),
        (("--label", "zone=a b"), "--label"),
        (("--drain-seconds", "-1"), "--drain-seconds"),
        (("--server", "nowhere"), "ORQESTRA_SERVERS"),
    ],
)
async def test_bad_options_are_refused_by_name(
    peer: Peer, tmp_path: Path, options: tuple[str, str], named: str
) -> None:
    async with worker_process(peer.address, "--state-dir", str(tmp_path), *options) as process:
        async with asyncio.timeout(PATIENCE_SECONDS):
            _, log = await process.communicate()

    assert process.returncode == 2
    assert named in log.decode()
    assert "Traceback" not in log.decode()
