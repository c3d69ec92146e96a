"""Jobs that do nothing: they need no slot and no supervisor, and who measures sees them start."""

from collections.abc import Collection
from pathlib import Path

import pytest

from orqestra.model.report import AttemptRef
from orqestra.worker.jobs import Jobs
from orqestra.worker.lease import Lease, boot_seconds
from orqestra.worker.shell import Shell
from orqestra.worker.surroundings import Surroundings
from tests.support.on_wire import accept, results_in
from tests.support.worker_peer import assignment

LEASE_SECONDS = 15.0


def noop_jobs(tmp_path: Path, seen: list[list[int]]) -> Jobs:
    """Return what a worker holds, with no supervisor yet; each batch of ids that starts is added to `seen`."""

    def note(attempts: Collection[AttemptRef]) -> None:
        seen.append([attempt.job_id for attempt in attempts])

    return Jobs(1, Shell({}, tmp_path / "jobs", Surroundings()), on_noops=note)


@pytest.mark.everywhere
async def test_each_batch_is_seen_once_when_it_starts(tmp_path: Path) -> None:
    seen: list[list[int]] = []
    jobs = noop_jobs(tmp_path, seen)
    accept(jobs, [assignment(1, type="noop"), assignment(2, type="noop")])
    assert seen == []

    jobs.lease = Lease(LEASE_SECONDS, hello_sent_at=boot_seconds(), now=boot_seconds())
    jobs.start_waiting()
    jobs.start_waiting()
    accept(jobs, [assignment(3, type="noop")])

    assert seen == [[1, 2], [3]]
    assert [result.attempt.job_id for result in results_in(jobs.results.take_results())] == [1, 2, 3]


@pytest.mark.everywhere
async def test_what_is_cancelled_before_it_starts_is_not_seen(tmp_path: Path) -> None:
    seen: list[list[int]] = []
    jobs = noop_jobs(tmp_path, seen)
    accept(jobs, [assignment(1, type="noop")])
    jobs.cancel([AttemptRef(1, 1, 1000)])

    jobs.lease = Lease(LEASE_SECONDS, hello_sent_at=boot_seconds(), now=boot_seconds())
    jobs.start_waiting()

    assert seen == []
