"""A load: many equal jobs, submitted in batches, waited for, and then looked at one by one.

To count what has ended while the system works would cost it a walk through its table each time. So one
job at a time is watched, which costs a read or two: a *mark*, one in each twentieth of the jobs by id,
which is the order in which they start. The last mark is the last job. Its end, as we hear of it, is the
end of the load, unless another job ended later: afterwards every job is read, and the time between
those two ends, by the clock of Postgres that stamped both, is added.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from orqestra.client import Client, Job, JobFilter, JobSpec
from orqestra.model import limits
from orqestra.model.lifecycle import State

BATCH_JOBS: Final = 1000
CALLERS: Final = 4
MARKS: Final = 20
# From one mark to the next. Who waits longer has lost jobs, or commands that belong in no benchmark.
STALL_SECONDS: Final = 120.0
# What is ours in a list of jobs.
TAG: Final = "bench"

# Given the number of jobs that have ended, or nearly so.
Progress = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Wait:
    """What was seen of a load while it ran. `heard_at` is on the clock of the event loop."""

    ids: Sequence[int]
    began_at: float
    heard_at: float

    @property
    def last(self) -> int:
        """The job that was waited for."""
        return self.ids[-1]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a load. `lost` did not end or are not there, `duplicated` were started again."""

    seconds: float
    latencies: Sequence[float]
    lost: int
    duplicated: int
    failed: int


async def run(client: Client, spec: JobSpec, jobs: int, progress: Progress) -> Wait:
    """Submit equal jobs and return after the last one's end, or once nothing more happens."""
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    ids = await _submit(client, spec, jobs)
    for ended, mark in marks(ids):
        if not await _ends(client, mark):
            break
        progress(ended)
    return Wait(ids=ids, began_at=began_at, heard_at=loop.time())


async def look_at_all(client: Client, wait: Wait) -> Outcome:
    """Read every job of a load and return what became of it."""
    return judge(wait, [job async for job in _read(client, wait.ids)])


def judge(wait: Wait, found: Iterable[Job]) -> Outcome:
    """Return what became of a load, of whose jobs these were found; others are passed over."""
    wanted = frozenset(wait.ids)
    ended = {job.id: job for job in found if job.id in wanted and job.ended}
    return Outcome(
        seconds=wait.heard_at - wait.began_at + _ended_after(ended, wait.last),
        latencies=[_seconds_between(job.created_at, job.finished_at) for job in ended.values()],
        lost=len(wanted) - len(ended) + len(wait.ids) - len(wanted),
        duplicated=sum((job.attempt, job.fence) != (1, 1) for job in ended.values()),
        failed=sum(job.status is not State.COMPLETED for job in ended.values()),
    )


def marks(ids: Sequence[int]) -> list[tuple[int, int]]:
    """Return which jobs to watch, each after the number of jobs up to it; the last is the last of all."""
    ends = sorted({len(ids) * part // MARKS for part in range(1, MARKS + 1)} - {0})
    return [(end, ids[end - 1]) for end in ends]


async def _submit(client: Client, spec: JobSpec, jobs: int) -> list[int]:
    """Submit from a few callers at once; return the ids in ascending order."""
    batches = [min(BATCH_JOBS, jobs - at) for at in range(0, jobs, BATCH_JOBS)]
    ids: list[int] = []

    async def call() -> None:
        while batches:
            ids.extend(await client.submit_many([spec] * batches.pop()))

    async with asyncio.TaskGroup() as group:
        for _ in range(CALLERS):
            group.create_task(call())
    return sorted(ids)


async def _ends(client: Client, job_id: int) -> bool:
    """Wait for the end of a job; False if it does not come."""
    try:
        async with asyncio.timeout(STALL_SECONDS):
            async for _ in client.watch(job_id):
                pass
    except TimeoutError:
        return False
    return True


async def _read(client: Client, ids: Sequence[int]) -> AsyncIterator[Job]:
    """Yield the jobs that bear our tag, from the last of `ids` down to the first."""
    after: int | None = ids[-1] + 1
    while after is not None and after > ids[0]:
        page = await client.list(JobFilter(tags=(TAG,)), limit=limits.PAGE_JOBS, after=after)
        for job in page.jobs:
            yield job
        after = page.next


def _ended_after(ended: dict[int, Job], last: int) -> float:
    """Return for how many seconds jobs still ended after `last` had."""
    if last not in ended:
        return 0.0
    return max(_seconds_between(ended[last].finished_at, job.finished_at) for job in ended.values())


def _seconds_between(begin: datetime | None, end: datetime | None) -> float:
    """Return the seconds between two times of a job that has ended, and so has both."""
    assert begin is not None and end is not None
    return (end - begin).total_seconds()
