"""How a load is cut into batches, watched, and submitted at a given rate."""

import pytest

from orqestra.bench.load import BATCH_JOBS, MARKS, batches, marks
from orqestra.bench.open_loop import Schedule
from orqestra.bench.wire import entry
from orqestra.client import JobSpec
from orqestra.v1 import jobs_pb2


@pytest.mark.parametrize("jobs", [1, 3, MARKS, 1017])
def test_the_last_mark_is_the_last_job(jobs: int) -> None:
    ids = [10 * number for number in range(1, jobs + 1)]

    found = marks(ids)

    assert found[-1] == (jobs, ids[-1])
    assert len(found) == min(jobs, MARKS)
    assert all(ids[ended - 1] == mark for ended, mark in found)


@pytest.mark.parametrize("jobs", [1, BATCH_JOBS - 1, BATCH_JOBS, 2 * BATCH_JOBS, 2 * BATCH_JOBS + 1])
def test_batches_are_what_a_server_reads_and_hold_every_job(jobs: int) -> None:
    spec = JobSpec(type="noop", queue="measured", tags=("bench",))

    found = [jobs_pb2.SubmitBatchRequest.FromString(batch).jobs for batch in batches(entry(spec), jobs)]

    assert sum(map(len, found)) == jobs
    assert max(map(len, found)) <= BATCH_JOBS
    assert {(job.type, job.queue, *job.tags) for batch in found for job in batch} == {("noop", "measured", "bench")}


def test_a_schedule_gives_what_is_due_and_each_job_once() -> None:
    schedule = Schedule(jobs=10, jobs_per_s=4.0, began_at=100.0)

    assert list(schedule.take(100.0)) == [0]
    assert list(schedule.take(100.0)) == []
    assert list(schedule.take(100.25)) == [1]
    assert list(schedule.take(101.1)) == [2, 3, 4]
    assert not schedule.is_over
    assert list(schedule.take(200.0)) == [5, 6, 7, 8, 9]
    assert schedule.is_over
    assert [schedule.at(number) for number in (0, 1, 9)] == [100.0, 100.25, 102.25]


def test_a_caller_that_was_kept_waiting_takes_a_batch_at_most() -> None:
    schedule = Schedule(jobs=5 * BATCH_JOBS, jobs_per_s=1e6, began_at=0.0)

    assert len(schedule.take(1.0)) == BATCH_JOBS
    assert schedule.take(1.0).start == BATCH_JOBS
