"""A real worker against a scripted server: jobs, their output and results, cancels and timeouts."""

import os
import signal
from pathlib import Path

import grpc
import pytest

from orqestra.v1 import worker_pb2 as pb
from orqestra.v1.jobs_pb2 import STREAM_STDERR, STREAM_STDOUT
from tests.support.fifo import Fifo
from tests.support.worker_peer import Peer, assignment, shell
from tests.support.working import held, working

pytestmark = pytest.mark.everywhere

KIB = 1024
# A field that none of our messages has.
LATER = b"\xa2\x06\x05later"
Phase = pb.HeldAttempt.Phase


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


async def test_what_a_later_server_says_beside_it_is_passed_over(peer: Peer, tmp_path: Path) -> None:
    async with working(peer, tmp_path):
        session = await peer.welcomed()
        jobs = [assignment(1, type="noop"), shell(2, "true")]

        await session.send(LATER, assign=pb.Assign(number=1, jobs=jobs))
        ended: set[int] = set()
        while len(ended) < len(jobs):
            ended |= {result.attempt.job_id for result in (await session.receive("results")).results}
        acks = [pb.ResultAcks.Ack(attempt=job.attempt, verdict=pb.ResultAcks.VERDICT_ACCEPTED) for job in jobs]
        await session.send(LATER, result_acks=pb.ResultAcks(acks=acks))
        await session.send(list_held=pb.ListHeld(seq=1))
        answer = await session.receive("held")

    assert list(answer.held) == []


async def test_jobs_beyond_the_slots_wait_their_turn(peer: Peer, tmp_path: Path, gate: Fifo) -> None:
    async with working(peer, tmp_path, slots=1):
        session = await peer.welcomed()
        await session.assign(shell(1, f"read _ < {gate}"), shell(2, "echo 2"), shell(3, "echo 3"))
        await session.send(list_held=pb.ListHeld(seq=5))
        answer = await session.receive("held")
        gate.release()

        ends = [(await session.result(number)).started_at_us for number in (1, 2, 3)]

    assert answer.seq == 5
    assert held(answer.held) == dict.fromkeys((1, 2, 3), Phase.PHASE_RUNNING)
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
