"""A load: many jobs, submitted in batches, and waited for. What became of each is for `audit` to say.

To count what has ended while the system works would cost it a walk through its table each time. So one
job at a time is watched, which costs a read or two: a *mark*, one in each twentieth of the jobs by id,
which is the order in which they start. The last mark is the last job. Its end, as we hear of it, is the
end of the load, unless another job ended later: afterwards every job is read, and the time between
those two ends, by the clock of Postgres that stamped both, is added.
"""

import asyncio
import time
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Final, TypeVar

from orqestra.bench.progress import Progress
from orqestra.bench.wire import Wire
from orqestra.client import Client, JobFilter, JobSpec
from orqestra.model import limits
from orqestra.model.lifecycle import TERMINAL, State

BATCH_JOBS: Final = 1000
# As many as the peers have that `benchmarks.peers` measures.
CALLERS: Final = 4
MARKS: Final = 20
# From one mark to the next. Who waits longer has lost jobs, or commands that belong in no benchmark.
STALL_SECONDS: Final = 120.0
# What is ours in a list of jobs.
TAG: Final = "bench"

# Jobs as a call takes them: encoded for `Wire`, or for the client library.
Batch = TypeVar("Batch", bytes, list[JobSpec])


@dataclass(frozen=True, kw_only=True)
class Wait:
    """What was seen of a load while it ran: its jobs, ascending; times are those of `time.monotonic`."""

    ids: Sequence[int]
    began_at: float
    heard_at: float

    @property
    def last(self) -> int:
        """The job that was waited for."""
        return self.ids[-1]


def batches(entry: Batch, jobs: int) -> Iterator[Batch]:
    """Yield so many equal jobs in batches: of an encoded one, or of the only one in a list."""
    whole = entry * min(jobs, BATCH_JOBS)
    yield from repeat(whole, jobs // BATCH_JOBS)
    if jobs % BATCH_JOBS:
        yield entry * (jobs % BATCH_JOBS)


async def run(client: Client, wire: Wire, jobs: Iterable[bytes], progress: Progress) -> Wait:
    """Submit batches of jobs and return after the last one's end, or once nothing more happens."""
    began_at = time.monotonic()
    ids = await submit(wire.submit, jobs)
    return Wait(ids=ids, began_at=began_at, heard_at=await wait(client, ids, progress))


async def submit(send: Callable[[Batch], Awaitable[Sequence[int]]], jobs: Iterable[Batch]) -> Sequence[int]:
    """Submit batches from a few callers at once by `Wire.submit` or `Client.submit_many`; return the ids, ascending."""
    left = iter(jobs)
    ids = array("q")

    async def call() -> None:
        for batch in left:
            ids.extend(await send(batch))

    async with asyncio.TaskGroup() as group:
        for _ in range(CALLERS):
            group.create_task(call())
    return array("q", sorted(ids))


async def submit_each(wire: Wire, entries: Sequence[bytes]) -> list[int]:
    """Submit jobs that differ, in batches one after the other; return their ids in the order of the jobs."""
    ids: list[int] = []
    for begin in range(0, len(entries), BATCH_JOBS):
        ids.extend(await wire.submit(b"".join(entries[begin : begin + BATCH_JOBS])))
    return ids


async def wait(client: Client, ids: Sequence[int], progress: Progress) -> float:
    """Wait until all jobs have ended, or nothing more happens; return when the last one's end was heard of."""
    progress.begin("jobs", len(ids))
    for ended, mark in marks(ids):
        if not await ends(client, mark):
            return time.monotonic()
        progress.reached(ended)
    heard_at = time.monotonic()
    # Whoever has a lower priority, is retried or runs on another worker ends later than one with a higher id.
    ours = frozenset(ids)
    while still_open := [job_id async for job_id in _open(client, ids) if job_id in ours]:
        if not await ends(client, still_open[0]):
            break
    return heard_at


async def _open(client: Client, ids: Sequence[int]) -> AsyncIterator[int]:
    """Yield the jobs with our tag in the range of `ids` that have not ended."""
    where = JobFilter(tags=(TAG,), statuses=tuple(state for state in State if state not in TERMINAL))
    after: int | None = ids[-1] + 1
    while after is not None and after > ids[0]:
        page = await client.list(where, limit=limits.PAGE_JOBS, after=after)
        for job in page.jobs:
            yield job.id
        after = page.next


def marks(ids: Sequence[int]) -> list[tuple[int, int]]:
    """Return which jobs to watch, each after the number of jobs up to it; the last is the last of all."""
    ends = sorted({len(ids) * part // MARKS for part in range(1, MARKS + 1)} - {0})
    return [(end, ids[end - 1]) for end in ends]


async def ends(client: Client, job_id: int) -> bool:
    """Wait for the end of a job; False if it does not come."""
    try:
        async with asyncio.timeout(STALL_SECONDS):
            async for _ in client.watch(job_id):
                pass
    except TimeoutError:
        return False
    return True
