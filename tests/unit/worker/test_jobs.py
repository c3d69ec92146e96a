"""What the worker holds, with real commands and without a stream."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from orqestra._dispatch import Executor
from orqestra.v1.worker_pb2 import HeldAttempt
from orqestra.worker.jobs import Jobs
from orqestra.worker.lease import Lease, boot_seconds
from orqestra.worker.outgoing import attempt_of
from orqestra.worker.shell import Shell
from tests.support.worker_peer import PATIENCE_SECONDS, assignment, shell

LEASE_SECONDS = 15.0
Phase = HeldAttempt.Phase


@pytest_asyncio.fixture
async def jobs(tmp_path: Path) -> AsyncIterator[Jobs]:
    """With one slot, and no lease yet."""
    executor = Executor()
    jobs = Jobs(1, executor, Shell({b"PATH": b"/usr/bin:/bin"}, tmp_path))
    asyncio.get_running_loop().add_reader(executor.fileno(), jobs.read_reports)
    yield jobs
    asyncio.get_running_loop().remove_reader(executor.fileno())
    executor.stop(kill=True)


def lease(*, sent_seconds_ago: float = 0.0) -> Lease:
    now = boot_seconds()
    return Lease(LEASE_SECONDS, hello_sent_at=now - sent_seconds_ago, now=now)


def phases(jobs: Jobs) -> dict[int, HeldAttempt.Phase]:
    return {each.attempt.job_id: each.phase for each in jobs.held()}


async def quiet(jobs: Jobs) -> None:
    """Return once no command runs."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        await jobs.quiet.wait()


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

    (result,) = jobs.results.take_results()
    assert result.reason == "cancelled"


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
