"""What the worker holds, with real commands and without a stream."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from orqestra.model import limits
from orqestra.v1.worker_pb2 import HeldAttempt, OutputAck, Result, ResultAcks, WorkerMessage
from orqestra.worker.jobs import Jobs
from orqestra.worker.lease import Lease, boot_seconds
from orqestra.worker.outgoing import attempt_of
from orqestra.worker.shell import Shell
from orqestra.worker.supervised import Supervision
from orqestra.worker.surroundings import Surroundings
from tests.support.fifo import Fifo
from tests.support.on_wire import accept, acks_of, results_in
from tests.support.spooling import segments
from tests.support.supervising import supervision, supervisor_pid
from tests.support.waiting import until
from tests.support.worker_peer import PATIENCE_SECONDS, assignment, shell

LEASE_SECONDS = 15.0
Phase = HeldAttempt.Phase


@asynccontextmanager
async def working(tmp_path: Path) -> AsyncIterator[Jobs]:
    """Jobs with one slot, and no lease yet, of a daemon that is killed at the end, and its supervisor too."""
    with supervision(tmp_path) as kept:
        jobs = Jobs(1, Shell({b"PATH": b"/usr/bin:/bin"}, tmp_path / "jobs", Surroundings()))
        with attached(jobs, kept):
            yield jobs


@contextmanager
def attached(jobs: Jobs, kept: Supervision) -> Iterator[None]:
    """Have the jobs run by the supervisor, and its reports read, until it has ended."""
    supervisor = kept.open()
    jobs.attach(supervisor)
    loop = asyncio.get_running_loop()

    def read() -> None:
        if not jobs.read_reports():
            loop.remove_reader(supervisor.fileno())
            jobs.lost()

    loop.add_reader(supervisor.fileno(), read)
    yield
    loop.remove_reader(supervisor.fileno())


@pytest_asyncio.fixture
async def jobs(tmp_path: Path) -> AsyncIterator[Jobs]:
    async with working(tmp_path) as jobs:
        yield jobs


def lease(*, sent_seconds_ago: float = 0.0) -> Lease:
    now = boot_seconds()
    return Lease(LEASE_SECONDS, hello_sent_at=now - sent_seconds_ago, now=now)


def phases(jobs: Jobs) -> dict[int, HeldAttempt.Phase]:
    return {each.attempt.job_id: each.phase for each in jobs.held()}


async def quiet(jobs: Jobs) -> None:
    """Return once no command runs."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        await jobs.quiet.wait()


async def offered(jobs: Jobs) -> Result:
    """Return the next result, once it is durable."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (message := jobs.results.take_results()) is None:
            await jobs.outgoing.wait()
    (result,) = results_in(message)
    return result


def acknowledge(jobs: Jobs, result: Result, verdict: ResultAcks.Verdict = ResultAcks.VERDICT_ACCEPTED) -> None:
    assert jobs.acknowledged(acks_of([(result.attempt, verdict)]))


async def deleted(tmp_path: Path) -> None:
    """Return once nothing is on disk that anybody still wants."""
    await until(lambda: all(not segment.read_bytes().strip(b"\0") for segment in segments(tmp_path)))


async def handed_back(jobs: Jobs, count: int) -> list[int]:
    """Return the next jobs that are handed back, once they are so many."""
    found: list[int] = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(found) < count:
            if (message := jobs.outgoing.next()) is None:
                await jobs.outgoing.wait()
            else:
                found += [attempt.job_id for attempt in WorkerMessage.FromString(message).assign_nack.attempts]
    return found


@pytest.mark.everywhere
async def test_nothing_is_started_without_a_session(jobs: Jobs) -> None:
    accept(jobs, [shell(1, "true"), assignment(2, type="noop")])
    assert phases(jobs) == {1: Phase.PHASE_RUNNING, 2: Phase.PHASE_QUEUED}

    before_us = time.time_ns() // 1000
    jobs.lease = lease()
    jobs.start_waiting()

    assert phases(jobs) == {1: Phase.PHASE_RUNNING, 2: Phase.PHASE_FINISHED}
    await quiet(jobs)
    assert all(result.started_at_us >= before_us for result in results_in(jobs.results.take_results()))
    assert phases(jobs) == {1: Phase.PHASE_FINISHED, 2: Phase.PHASE_FINISHED}


@pytest.mark.everywhere
async def test_a_slot_that_falls_free_between_two_sessions_stays_free(jobs: Jobs, tmp_path: Path) -> None:
    with Fifo(tmp_path / "started") as started, Fifo(tmp_path / "gate") as gate:
        jobs.lease = lease()
        accept(jobs, [shell(1, f"echo > {started}; read _ < {gate}"), shell(2, "true")])
        await started.line()

        jobs.end_session()
        gate.release()
        assert (await offered(jobs)).attempt.job_id == 1

    jobs.drain()
    assert await handed_back(jobs, 1) == [2]


@pytest.mark.everywhere
async def test_nothing_is_started_once_the_lease_may_be_over(jobs: Jobs) -> None:
    jobs.lease = lease(sent_seconds_ago=LEASE_SECONDS)

    accept(jobs, [shell(1, "true"), assignment(2, type="noop")])

    assert phases(jobs) == {1: Phase.PHASE_RUNNING, 2: Phase.PHASE_QUEUED}
    jobs.drain()
    assert sorted(await handed_back(jobs, 2)) == [1, 2]


async def test_an_attempt_that_comes_twice_is_one(jobs: Jobs) -> None:
    jobs.lease = lease()
    twice = [shell(1, "true"), assignment(2, type="noop")]

    accept(jobs, [*twice, *twice])
    accept(jobs, twice)
    assert len(jobs.held()) == 2
    await quiet(jobs)
    accept(jobs, twice)

    assert phases(jobs) == {1: Phase.PHASE_FINISHED, 2: Phase.PHASE_FINISHED}


async def test_a_cancelled_command_is_not_handed_back_by_the_drain(jobs: Jobs) -> None:
    jobs.lease = lease()
    job = shell(1, "sleep 30")
    accept(jobs, [job])
    jobs.drain()
    jobs.return_running()

    jobs.cancel([attempt_of(job.attempt)])
    await quiet(jobs)

    assert (await offered(jobs)).reason == "cancelled"


async def test_a_revoked_command_keeps_its_slot_until_it_has_ended(jobs: Jobs) -> None:
    jobs.lease = lease()
    first, second = shell(1, "sleep 30"), shell(2, "sleep 30")
    accept(jobs, [first, second])

    jobs.revoke([attempt_of(first.attempt)])
    assert phases(jobs) == {2: Phase.PHASE_RUNNING}
    jobs.revoke([attempt_of(second.attempt)])
    await quiet(jobs)

    assert jobs.idle.is_set()
    assert jobs.held() == []


async def test_what_was_not_acknowledged_is_held_and_offered_by_the_next_process(tmp_path: Path) -> None:
    async with working(tmp_path) as first:
        first.lease = lease()
        accept(first, [shell(1, "echo kept; exit 3"), assignment(2, type="noop")])
        acknowledge(first, await offered(first))
        await quiet(first)

    async with working(tmp_path) as second:
        assert phases(second) == {1: Phase.PHASE_FINISHED}
        result = await offered(second)
        assert (result.exit_code, result.stdout) == (3, b"kept\n")
        acknowledge(second, result)
        assert second.idle.is_set()
        await deleted(tmp_path)

    async with working(tmp_path) as third:
        assert third.held() == []


async def test_what_ran_nothing_is_not_kept_for_the_next_process(tmp_path: Path) -> None:
    waiting = shell(4, "true")
    async with working(tmp_path) as first:
        first.lease = lease()
        accept(first, [assignment(1, type="noop"), assignment(2, type="none"), shell(3, "sleep 30"), waiting])
        first.cancel([attempt_of(waiting.attempt)])
        finished = {1: Phase.PHASE_FINISHED, 2: Phase.PHASE_FINISHED, 4: Phase.PHASE_FINISHED}
        await until(lambda: phases(first) == {**finished, 3: Phase.PHASE_RUNNING})

    async with working(tmp_path) as second:
        assert second.held() == []


async def test_what_is_revoked_is_not_offered_again(tmp_path: Path) -> None:
    job = shell(1, "echo kept")
    async with working(tmp_path) as first:
        first.lease = lease()
        accept(first, [job])
        await offered(first)

    async with working(tmp_path) as second:
        second.revoke([attempt_of(job.attempt)])
        assert second.held() == []
        await deleted(tmp_path)

    async with working(tmp_path) as third:
        assert third.held() == []


async def test_the_result_of_a_job_that_nobody_knows_is_kept_aside(tmp_path: Path) -> None:
    async with working(tmp_path) as jobs:
        jobs.lease = lease()
        accept(jobs, [shell(1, "echo whose?")])
        acknowledge(jobs, await offered(jobs), ResultAcks.VERDICT_UNKNOWN)
        await deleted(tmp_path)

    (kept,) = (tmp_path / "spool" / "aside").iterdir()
    assert b"whose?\n" in kept.read_bytes()


async def test_the_result_whose_output_is_refused_is_kept_aside(tmp_path: Path) -> None:
    async with working(tmp_path) as jobs:
        jobs.lease = lease()
        accept(jobs, [shell(1, f"head -c {limits.OUTPUT_INLINE_BYTES + 1} /dev/zero")])
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (piece := jobs.results.take_output()) is None:
                await jobs.outgoing.wait()
        jobs.output_stored(OutputAck(attempt=piece.attempt, stream=piece.stream, offset=piece.offset, stored=False))
        assert jobs.held() == []
        await deleted(tmp_path)

    (kept,) = (tmp_path / "spool" / "aside").iterdir()
    assert piece.data in kept.read_bytes()


async def test_what_runs_and_what_ended_is_taken_over_by_the_next_daemon(tmp_path: Path) -> None:
    # given a command that runs, one that has ended, and one that waits, when the daemon dies
    with supervision(tmp_path) as first, supervision(tmp_path) as second:
        killed = Jobs(2, Shell({b"PATH": b"/usr/bin:/bin"}, tmp_path / "jobs", Surroundings()))
        with attached(killed, first):
            killed.lease = lease()
            accept(killed, [shell(1, "sleep 30", timeout_ms=60_000), shell(2, "exit 3"), shell(3, "sleep 30")])
            await offered(killed)
            accept(killed, [shell(4, "true")])
        assert first.supervisor is not None
        first.supervisor.hang_up()

        # when the next one takes over, with fewer slots
        next_ = Jobs(1, Shell({b"PATH": b"/usr/bin:/bin"}, tmp_path / "jobs", Surroundings()))
        with attached(next_, second):
            # then it holds them as they are, and one too many runs
            running = dict.fromkeys((1, 3, 4), Phase.PHASE_RUNNING)
            assert phases(next_) == {2: Phase.PHASE_FINISHED, **running}
            result = await offered(next_)
            assert (result.attempt.job_id, result.exit_code) == (2, 3)
            acknowledge(next_, result)
            # and new ones wait until there is room
            next_.lease = lease()
            accept(next_, [shell(5, "true")])
            assert next_.results.take_results() is None
            next_.cancel([attempt_of(shell(1, "").attempt)])
            assert second.supervisor is not None
            second.supervisor.cancel([second.supervisor.held[2][0]])
            reasons: dict[int, str] = {}
            while len(reasons) < 4:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await next_.outgoing.wait()
                reasons |= {each.attempt.job_id: each.reason for each in results_in(next_.results.take_results())}
            # Nobody here knows of the third that it was not the drain or the orphan timeout.
            assert reasons == {1: "cancelled", 3: "returned", 4: "exited", 5: "exited"}


async def test_with_its_supervisor_everything_that_ran_is_lost_and_the_rest_goes_on(tmp_path: Path) -> None:
    with supervision(tmp_path) as kept:
        jobs = Jobs(1, Shell({b"PATH": b"/usr/bin:/bin"}, tmp_path / "jobs", Surroundings()))
        with attached(jobs, kept):
            # given one that has ended and is not acknowledged, one that runs, and one that waits
            jobs.lease = lease()
            accept(jobs, [shell(1, "echo kept"), shell(2, "sleep 30"), shell(3, "echo waited")])
            assert (await offered(jobs)).attempt.job_id == 1

            # when the supervisor is killed, then nothing is offered until there is another
            os.kill(supervisor_pid(tmp_path), signal.SIGKILL)
            await until(lambda: jobs.offered_slots == 0)
            assert "supervisor" in jobs.health
            assert phases(jobs) == {1: Phase.PHASE_FINISHED}
            accept(jobs, [shell(3, "echo waited")])
            assert phases(jobs) == {1: Phase.PHASE_FINISHED, 3: Phase.PHASE_QUEUED}
            kept.lost()

        # and with that one what has come meanwhile is started, and what is owed is owed once
        with attached(jobs, kept):
            assert jobs.offered_slots == 1
            assert jobs.health == ""
            assert (await offered(jobs)).stdout == b"waited\n"
            assert phases(jobs) == {1: Phase.PHASE_FINISHED, 3: Phase.PHASE_FINISHED}
            jobs.results.offer_again()
            results = results_in(jobs.results.take_results())
            assert [result.stdout for result in results] == [b"kept\n", b"waited\n"]
            for result in results:
                acknowledge(jobs, result)
            assert jobs.idle.is_set()
            await deleted(tmp_path)


@pytest.mark.everywhere
async def test_a_job_is_handed_back_when_the_machine_cannot_start_it(tmp_path: Path) -> None:
    async with working(tmp_path) as jobs:
        jobs.lease = lease()
        # given a worker in whose folder commands can't have theirs
        (tmp_path / "jobs").rmdir()
        (tmp_path / "jobs").touch()

        accept(jobs, [shell(1, "true")])
        await quiet(jobs)

        # then it says so, and wants no more for now
        nack = WorkerMessage.FromString(jobs.outgoing.next() or b"").assign_nack
        assert [attempt.job_id for attempt in nack.attempts] == [1]
        assert jobs.health == nack.reason
        assert jobs.offered_slots == 0
