"""A real worker against a server that plays its part by script: what goes over the stream, and when."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from orqestra.v1 import worker_pb2 as pb
from orqestra.v1.jobs_pb2 import STREAM_STDERR, STREAM_STDOUT
from orqestra.worker.daemon import Worker, WorkerOptions
from tests.support.fifo import Fifo
from tests.support.worker_peer import PATIENCE_SECONDS, Peer, assignment, shell

KIB = 1024
Phase = pb.HeldAttempt.Phase


@pytest_asyncio.fixture
async def peer() -> AsyncIterator[Peer]:
    async with Peer.serving() as peer:
        yield peer


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Fifo]:
    """A command writes to it once it runs."""
    with Fifo(tmp_path / "started") as fifo:
        yield fifo


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Fifo]:
    """A command reads from it until the test lets it go on."""
    with Fifo(tmp_path / "gate") as fifo:
        yield fifo


@asynccontextmanager
async def working(peer: Peer, tmp_path: Path, **changes: Any) -> AsyncIterator["asyncio.Task[int]"]:
    """A worker that runs until the block ends; the task is its exit code."""
    options: dict[str, Any] = {
        "address": peer.address,
        "name": "tested",
        "slots": 4,
        "queues": ("default",),
        "labels": {"arch": "any"},
        "state_dir": tmp_path / "state",
        "drain_seconds": 5.0,
    }
    worker = Worker(WorkerOptions(**options | changes))
    task = asyncio.create_task(worker.run())
    try:
        yield task
    finally:
        worker.stop()
        worker.stop()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await asyncio.wait([task])


@asynccontextmanager
async def worker_process(peer: Peer, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`orqestra worker` in a process of its own, gone after the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "orqestra", "worker", "--server", peer.address, *options),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


def held(messages: Any) -> dict[int, Any]:
    return {each.attempt.job_id: each.phase for each in messages}


async def test_a_job_is_acknowledged_run_and_reported(peer: Peer, tmp_path: Path) -> None:
    async with working(peer, tmp_path):
        session = await peer.session()
        hello = await session.welcome()
        number = await session.assign(shell(1, "echo out; echo err >&2; exit 3"))

        ack = await session.receive("assign_ack")
        result = await session.result(1)

    assert (hello.protocol, hello.slots, hello.name) == (1, 4, "tested")
    assert list(hello.queues) == ["default"]
    assert dict(hello.labels) == {"arch": "any"}
    assert not hello.held
    assert ack.up_to == number
    assert (result.ok, result.reason, result.exit_code) == (False, "exited", 3)
    assert (result.stdout, result.stderr) == (b"out\n", b"err\n")
    assert (result.stdout_bytes, result.stderr_bytes, result.truncated) == (4, 4, False)
    assert result.started_at_us > 0
    assert result.wall_us > 0


async def test_noops_end_at_once_in_few_messages(peer: Peer, tmp_path: Path) -> None:
    async with working(peer, tmp_path, slots=1):
        session = await peer.welcomed()
        await session.assign(*(assignment(number, type="noop") for number in range(1, 1501)))

        first = await session.receive("results")
        second = await session.receive("results")

    assert (len(first.results), len(second.results)) == (1000, 500)
    assert all(result.ok and result.exit_code == 0 for result in first.results)


async def test_jobs_beyond_the_slots_wait_their_turn(peer: Peer, tmp_path: Path, gate: Fifo) -> None:
    async with working(peer, tmp_path, slots=1):
        session = await peer.welcomed()
        await session.assign(shell(1, f"read _ < {gate}"), shell(2, "echo 2"), shell(3, "echo 3"))
        await session.send(list_held=pb.ListHeld(seq=5))
        answer = await session.receive("held")
        gate.release()

        ends = [(await session.result(number)).started_at_us for number in (1, 2, 3)]

    assert answer.seq == 5
    assert held(answer.held) == {1: Phase.PHASE_RUNNING, 2: Phase.PHASE_QUEUED, 3: Phase.PHASE_QUEUED}
    assert ends == sorted(ends)


@pytest.mark.parametrize(
    ("job", "exit_code", "error"),
    [
        (assignment(1, payload=b'{"argv": ["/nowhere/at-all"]}'), 127, "No such file"),
        (assignment(1, payload=b'{"command": "true", "cwd": "/nowhere"}'), 126, "working directory"),
        (assignment(1, payload=b"not json"), 126, "not JSON"),
        (assignment(1, payload=b"{}"), 126, "command or argv"),
        (assignment(1, type="python"), 127, "'python' is not known"),
    ],
)
async def test_what_cannot_be_run_fails_by_its_own_fault(
    peer: Peer, tmp_path: Path, job: pb.Assignment, exit_code: int, error: str
) -> None:
    async with working(peer, tmp_path):
        session = await peer.welcomed()
        await session.assign(job, shell(2, "true"))

        result = await session.result(1)
        other = await session.result(2)

    assert (result.ok, result.reason, result.exit_code) == (False, "spawn_failed", exit_code)
    assert error in result.error
    assert other.ok


async def test_a_command_sees_its_job_and_the_previous_output_but_not_the_workers_secrets(
    peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DB_URL", "postgresql://secret")
    monkeypatch.setenv("PASSED", "on")
    previous = b"\xff caf\xc3\xa9\0\n\n"
    script = 'env; printf "%s" "$PREVIOUS_OUTPUT" | od -An -tx1; od -An -tx1 "$ORQESTRA_PREVIOUS_OUTPUT_FILE"'
    job = shell(5, script, fence=9, attempt_number=2, run_id=77, has_previous_output=True, previous_output=previous)
    async with working(peer, tmp_path, passed_on=("PASSED", "MISSING")):
        session = await peer.welcomed()
        await session.assign(job)
        result = await session.result(5)

    lines = result.stdout.splitlines()
    assert {b"ORQESTRA_JOB_ID=5", b"ORQESTRA_FENCE=9", b"ORQESTRA_ATTEMPT=2", b"ORQESTRA_RUN_ID=77"} <= set(lines)
    assert b"PASSED=on" in lines
    assert b"secret" not in result.stdout
    assert lines[-2:] == [b" ff 20 63 61 66 c3 a9", b" ff 20 63 61 66 c3 a9 00 0a 0a"]
    assert not list((tmp_path / "state" / "worker-0" / "jobs").iterdir())


async def test_large_output_is_stored_before_its_result_and_holds_up_no_other(peer: Peer, tmp_path: Path) -> None:
    async with working(peer, tmp_path):
        session = await peer.welcomed()
        await session.assign(shell(1, "head -c 100000 /dev/zero; head -c 9000 /dev/zero >&2; echo x"))
        pieces = [await session.receive("store_output") for _ in range(3)]
        await session.assign(shell(2, "echo small"))
        small = await session.result(2)
        assert session.waiting("results") == 0
        for piece in pieces:
            ack = pb.OutputAck(attempt=piece.attempt, stream=piece.stream, offset=piece.offset, stored=True)
            await session.send(output_ack=ack)
        large = await session.result(1)

    assert small.stdout == b"small\n"
    assert [(piece.stream, piece.offset, len(piece.data)) for piece in pieces] == [
        (STREAM_STDOUT, 0, 64 * KIB),
        (STREAM_STDOUT, 64 * KIB, 100_002 - 64 * KIB),
        (STREAM_STDERR, 0, 9000),
    ]
    assert large.ok
    assert (large.stdout, large.stdout_stored, large.stdout_bytes) == (b"", True, 100_002)
    assert (large.stderr, large.stderr_stored, large.stderr_bytes) == (b"", True, 9000)


async def test_refused_output_ends_the_workers_duty(peer: Peer, tmp_path: Path) -> None:
    async with working(peer, tmp_path):
        session = await peer.welcomed()
        await session.assign(shell(1, "head -c 9000 /dev/zero"))
        piece = await session.receive("store_output")
        await session.send(output_ack=pb.OutputAck(attempt=piece.attempt, stream=piece.stream, stored=False))
        await session.send(list_held=pb.ListHeld(seq=1))
        answer = await session.receive("held")

    assert not answer.held


async def test_a_result_that_was_not_acknowledged_is_sent_again_on_the_next_stream(
    peer: Peer, tmp_path: Path, started: Fifo
) -> None:
    async with working(peer, tmp_path, slots=2):
        first = await peer.session()
        hello = await first.welcome()
        await first.assign(shell(1, "echo kept"), shell(2, f"echo > {started}; sleep 30"))
        await first.receive("results")
        await started.line()
        first.end(grpc.StatusCode.UNAVAILABLE)

        second = await peer.session()
        again = await second.welcome()
        result = await second.result(1)

    assert again.number > hello.number
    assert again.worker_id == hello.worker_id
    assert again.incarnation == hello.incarnation
    assert held(again.held) == {1: Phase.PHASE_FINISHED, 2: Phase.PHASE_RUNNING}
    assert result.stdout == b"kept\n"


async def test_what_is_revoked_is_killed_and_forgotten(peer: Peer, tmp_path: Path, started: Fifo) -> None:
    async with working(peer, tmp_path, slots=1):
        first = await peer.welcomed()
        job = shell(1, f"trap '' TERM; echo $$ > {started}; while :; do sleep 0.1; done")
        await first.assign(job, shell(2, "echo next"))
        pid = int(await started.line())
        first.end()

        second = await peer.session()
        await second.welcome(revoke=(job.attempt,))
        result = await second.result(2)

    assert result.stdout == b"next\n"
    # It had the only slot, so it had ended before the other began.
    assert list(second.results) == [2]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_cancel_reaches_the_process_and_what_waits(peer: Peer, tmp_path: Path, started: Fifo) -> None:
    async with working(peer, tmp_path, slots=1):
        session = await peer.welcomed()
        running, waiting = shell(1, f"echo > {started}; sleep 30"), shell(2, "echo never")
        await session.assign(running, waiting)
        await started.line()
        await session.send(cancel=pb.Cancel(attempts=[running.attempt, waiting.attempt]))

        never = await session.result(2)
        ended = await session.result(1)

    assert (never.ok, never.reason, never.stdout, never.started_at_us) == (False, "cancelled", b"", 0)
    assert (ended.ok, ended.reason, ended.exit_signal) == (False, "cancelled", signal.SIGTERM)


async def test_a_timeout_is_told_as_one(peer: Peer, tmp_path: Path) -> None:
    async with working(peer, tmp_path):
        session = await peer.welcomed()
        await session.assign(shell(1, "sleep 30", timeout_ms=50))
        result = await session.result(1)

    assert (result.ok, result.reason) == (False, "timeout")
    assert "50 ms" in result.error


async def test_live_output_comes_while_it_is_followed(peer: Peer, tmp_path: Path, gate: Fifo) -> None:
    async with working(peer, tmp_path):
        session = await peer.welcomed()
        job = shell(1, f"echo one; read _ < {gate}; echo two")
        await session.assign(job)
        await session.send(follow=pb.Follow(attempt=job.attempt))
        live = await session.receive("live_output")
        await session.send(follow=pb.Follow(attempt=job.attempt, stop=True))
        await session.send(list_held=pb.ListHeld(seq=1))
        await session.receive("held")
        gate.release()
        result = await session.result(1)

    assert (live.job_id, live.stream, live.offset, live.data) == (1, STREAM_STDOUT, 0, b"one\n")
    assert session.waiting("live_output") == 0
    assert result.stdout == b"one\ntwo\n"


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

    assert held(hello.held) == {1: Phase.PHASE_RUNNING, 2: Phase.PHASE_QUEUED}
    assert not proof.exists()


async def test_a_worker_that_was_stopped_starts_nothing_before_it_has_asked(
    peer: Peer, tmp_path: Path, gate: Fifo
) -> None:
    proof = tmp_path / "proof"
    async with worker_process(peer, "--slots", "1", "--state-dir", str(tmp_path)) as process:
        first = await peer.welcomed(lease_ms=1000)
        waiting = shell(2, f"touch {proof}")
        await first.assign(shell(1, f"read _ < {gate}"), waiting)
        await first.receive("assign_ack")
        process.send_signal(signal.SIGSTOP)
        gate.release()
        await asyncio.sleep(1.2)  # longer than the lease: the server has given the job to another worker
        first.end()
        process.send_signal(signal.SIGCONT)

        second = await peer.session()
        hello = await second.welcome(revoke=(waiting.attempt,))
        ended = await second.result(1)

    assert held(hello.held) == {1: Phase.PHASE_FINISHED, 2: Phase.PHASE_QUEUED}
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
    async with worker_process(peer, *options, "--state-dir", str(tmp_path)) as process:
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
    async with worker_process(gone, "--state-dir", str(tmp_path)) as process:
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
        (("--server", "nowhere"), "GRPC_ADDR"),
    ],
)
async def test_bad_options_are_refused_by_name(
    peer: Peer, tmp_path: Path, options: tuple[str, str], named: str
) -> None:
    async with worker_process(peer, "--state-dir", str(tmp_path), *options) as process:
        async with asyncio.timeout(PATIENCE_SECONDS):
            _, log = await process.communicate()

    assert process.returncode == 2
    assert named in log.decode()
    assert "Traceback" not in log.decode()
