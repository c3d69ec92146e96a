"""Jobs at a given rate, whatever the system does: when each is to be submitted is fixed before.

A caller that waits for an answer submits what has become due meanwhile together, as the client library
does. A latency counts from when a job was to be submitted, so that a system that stalls does not hide it
by being asked less.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from orqestra.bench.load import BATCH_JOBS
from orqestra.bench.wire import Wire

CALLERS: Final = 2


@dataclass
class Schedule:
    """So many jobs, evenly, at `jobs_per_s` from `began_at` on, by `time.monotonic`."""

    jobs: int
    jobs_per_s: float
    began_at: float
    taken: int = 0

    def at(self, number: int) -> float:
        """Return when a job is due."""
        return self.began_at + number / self.jobs_per_s

    @property
    def is_over(self) -> bool:
        """Whether all are taken."""
        return self.taken == self.jobs

    def take(self, now: float) -> range:
        """Take the numbers of the jobs that are due now and were not taken yet, at most a batch."""
        due = min(self.jobs, int((now - self.began_at) * self.jobs_per_s) + 1, self.taken + BATCH_JOBS)
        numbers = range(self.taken, max(due, self.taken))
        self.taken = numbers.stop
        return numbers


async def submit_on_schedule(wire: Wire, entry: bytes, schedule: Schedule) -> dict[int, float]:
    """Submit all jobs of a schedule; return when each was to be submitted, by its id."""
    due_at: dict[int, float] = {}

    async def call() -> None:
        while not schedule.is_over:
            now = time.monotonic()
            numbers = schedule.take(now)
            if numbers:
                ids = await wire.submit(entry * len(numbers))
                due_at.update(zip(ids, map(schedule.at, numbers), strict=True))
            else:
                await asyncio.sleep(schedule.at(schedule.taken) - now)

    async with asyncio.TaskGroup() as group:
        for _ in range(CALLERS):
            group.create_task(call())
    return due_at
