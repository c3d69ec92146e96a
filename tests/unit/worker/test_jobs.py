"""What the worker holds, with real commands and without a stream."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest_asyncio

from orqestra._dispatch import Executor, Spool
from orqestra.model import limits
from orqestra.v1.worker_pb2 import HeldAttempt, OutputAck, Result, ResultAcks
from orqestra.worker.jobs import Jobs
from orqestra.worker.lease import Lease, boot_seconds
from orqestra.worker.outgoing import attempt_of
from orqestra.worker.shell import Shell
from orqestra.worker.spool import decode
from tests.support.worker_peer import PATIENCE_SECONDS, assignment, shell

LEASE_SECONDS = 15.0
Phase = HeldAttempt.Phase


@asynccontextmanager
async def working(tmp_path: Path) -> AsyncIterator[Jobs]:
    """Jobs with one slot, and no lease yet."""
    executor, spool = Executor(), Spool(tmp_path / "spool")
    jobs = Jobs(1, executor, Shell({b"PATH": b"/usr/bin:/bin"}, tmp_path), spool)
    loop = asyncio.get_running_loop()
    loop.add_reader(executor.fileno(), jobs.read_reports)
    loop.add_reader(spool.fileno(), jobs.read_spool)
    yield jobs
    loop.remove_reader(executor.fileno())
    loop.remove_reader(spool.fileno())
    executor.stop(kill=True)
    spool.close()


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
        while not (results := jobs.results.take_results()):
            await jobs.outgoing.wait()
    (result,) = results
    return result


def acknowledge(jobs: Jobs, result: Result, verdict: ResultAcks.Verdict = ResultAcks.VERDICT_ACCEPTED) -> None:
    jobs.acknowledged([ResultAcks.Ack(attempt=result.attempt, verdict=verdict)])


async def test_nothing_is_started_without_a_session(jobs: Jobs) -> None:
    jobs.accept([shell(1, "true"), assignment(2, type="noop")])
    assert phases(jobs) == {1: Phase.PHASE_QUEUED, 2: Phase.PHASE_QUEUED}

    jobs.lease = lease()
    jobs.start_waiting()

    assert phases(jobs) == {1: Phase.PHASE_RUNNING, 2: Phase.PHASE_FINISHED}
    await quiet(jobs)
    assert phases(jobs) == {1: Phase.PHASE_FINISHED, 2: Phase.PHASE_FINISHED}


async def test_a_slot_that_falls_free_between_two_sessions_stays_free(jobs: Jobs) -> None:
    jobs.lease = lease()
    jobs.accept([shell(1, "true"), shell(2, "true")])

    jobs.end_session()
    await quiet(jobs)

    assert phases(jobs) == {1: Phase.PHASE_FINISHED, 2: Phase.PHASE_QUEUED}


async def test_nothing_is_started_once_the_lease_may_be_over(jobs: Jobs) -> None:
    jobs.lease = lease(sent_seconds_ago=LEASE_SECONDS)

    jobs.accept([shell(1, "true"), assignment(2, type="noop")])

    assert phases(jobs) == {1: Phase.PHASE_QUEUED, 2: Phase.PHASE_QUEUED}


async def test_an_attempt_that_comes_twice_is_one(jobs: Jobs) -> None:
    jobs.lease = lease()
    twice = [shell(1, "true"), assignment(2, type="noop")]

    jobs.accept([*twice, *twice])
    jobs.accept(twice)
    assert len(jobs.held()) == 2
    await quiet(jobs)
    jobs.accept(twice)

    assert phases(jobs) == {1: Phase.PHASE_FINISHED, 2: Phase.PHASE_FINISHED}


async def test_a_cancelled_command_is_not_handed_back_by_the_drain(jobs: Jobs) -> None:
    jobs.lease = lease()
    job = shell(1, "sleep 30")
    jobs.accept([job])
    jobs.drain()
    jobs.return_running()

    jobs.cancel([attempt_of(job.attempt)])
    await quiet(jobs)

    assert (await offered(jobs)).reason == "cancelled"


async def test_a_revoked_command_keeps_its_slot_until_it_has_ended(jobs: Jobs) -> None:
    jobs.lease = lease()
    first, second = shell(1, "sleep 30"), shell(2, "sleep 30")
    jobs.accept([first, second])

    jobs.revoke([attempt_of(first.attempt)])
    assert phases(jobs) == {2: Phase.PHASE_QUEUED}
    jobs.revoke([attempt_of(second.attempt)])
    await quiet(jobs)

    assert jobs.idle.is_set()
    assert jobs.held() == []


async def test_what_was_not_acknowledged_is_held_and_offered_by_the_next_process(tmp_path: Path) -> None:
    async with working(tmp_path) as first:
        first.lease = lease()
        first.accept([shell(1, "echo kept; exit 3"), assignment(2, type="noop")])
        acknowledge(first, await offered(first))
        await quiet(first)

    async with working(tmp_path) as second:
        assert phases(second) == {1: Phase.PHASE_FINISHED}
        result = await offered(second)
        assert (result.exit_code, result.stdout) == (3, b"kept\n")
        acknowledge(second, result)
        assert second.idle.is_set()

    async with working(tmp_path) as third:
        assert third.held() == []
    assert [each.name for each in (tmp_path / "spool").iterdir()] == ["aside"]


async def test_what_ran_nothing_is_not_kept_for_the_next_process(tmp_path: Path) -> None:
    waiting = shell(4, "true")
    async with working(tmp_path) as first:
        first.lease = lease()
        first.accept([assignment(1, type="noop"), assignment(2, type="none"), shell(3, "sleep 30"), waiting])
        first.cancel([attempt_of(waiting.attempt)])
        finished = {job_id for job_id, phase in phases(first).items() if phase == Phase.PHASE_FINISHED}
        assert finished == {1, 2, 4}

    async with working(tmp_path) as second:
        assert second.held() == []


async def test_what_is_revoked_is_not_offered_again(tmp_path: Path) -> None:
    job = shell(1, "echo kept")
    async with working(tmp_path) as first:
        first.lease = lease()
        first.accept([job])
        await offered(first)

    async with working(tmp_path) as second:
        second.revoke([attempt_of(job.attempt)])
        assert second.held() == []

    async with working(tmp_path) as third:
        assert third.held() == []


async def test_the_result_of_a_job_that_nobody_knows_is_kept_aside(tmp_path: Path) -> None:
    async with working(tmp_path) as jobs:
        jobs.lease = lease()
        jobs.accept([shell(1, "echo whose?")])
        acknowledge(jobs, await offered(jobs), ResultAcks.VERDICT_UNKNOWN)

    (kept,) = (tmp_path / "spool" / "aside").iterdir()
    assert decode(kept.read_bytes()).result.stdout == b"whose?\n"


async def test_the_result_whose_output_is_refused_is_kept_aside(tmp_path: Path) -> None:
    async with working(tmp_path) as jobs:
        jobs.lease = lease()
        jobs.accept([shell(1, f"head -c {limits.OUTPUT_INLINE_BYTES + 1} /dev/zero")])
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (piece := jobs.results.take_output()) is None:
                await jobs.outgoing.wait()
        jobs.output_stored(OutputAck(attempt=piece.attempt, stream=piece.stream, offset=piece.offset, stored=False))
        assert jobs.held() == []

    (kept,) = (tmp_path / "spool" / "aside").iterdir()
    assert decode(kept.read_bytes()).ahead[0].data == piece.data
