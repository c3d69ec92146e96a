"""Scenario `latency`: from the submit call to the start of the job's handler, on our own workers.

Idle: one job at a time, the next one after the end of the one before. Loaded: at a part of the throughput
that was measured right before, by a schedule that does not wait (`open_loop`).
"""

import time
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from orqestra.bench import load
from orqestra.bench.journal import Starts
from orqestra.bench.measure import beside_limit
from orqestra.bench.open_loop import CALLERS, Schedule, submit_on_schedule
from orqestra.bench.progress import Progress
from orqestra.bench.report import Latencies, Report, Verdict
from orqestra.bench.stage import Finding, Stage, staged
from orqestra.bench.system import System
from orqestra.bench.wire import entry
from orqestra.bench.workers import Crew

NAME: Final = "latency"
JOBS: Final = 1000
# Enough for a steady throughput; also how long each load lasts.
CAPACITY_JOBS: Final = 50_000
LOAD_SECONDS: Final = 5.0
PERCENT: Final = (30, 70)
NANOSECONDS: Final = 1e9


@dataclass(frozen=True, kw_only=True)
class Submits:
    """Jobs whose starts are looked for: when each was to be submitted, by its id, and how the load went."""

    due_at: Mapping[int, float]
    wait: load.Wait

    def latencies(self, starts: Starts) -> Latencies | None:
        """Return how long after that they started."""
        return Latencies.of(
            [starts.at_ns[job_id] / NANOSECONDS - at for job_id, at in self.due_at.items() if job_id in starts.at_ns]
        )


@dataclass(frozen=True, kw_only=True)
class Latency:
    """The scenario with its choices. `jobs` are those on the idle system."""

    progress: Progress
    crew: Crew
    jobs: int = JOBS
    load_seconds: float = LOAD_SECONDS
    capacity_jobs: int = CAPACITY_JOBS

    async def __call__(self, system: System) -> Report:
        """Measure idle latencies, the throughput, then latencies at parts of that."""
        async with staged(system, self.progress, self.crew) as stage:

            async def run() -> Submits:
                return await self._idle(stage)

            measured = await beside_limit(stage.cycles_per_s, stage.roots, run)
            capacity = await stage.run(self.capacity_jobs)
            jobs_per_s = self.capacity_jobs / (capacity.heard_at - capacity.began_at)
            loaded = [await self._loaded(stage, jobs_per_s * percent / 100) for percent in PERCENT]
            await stage.fleet.stop()
            waits = [measured.result.wait, capacity, *(each.wait for each in loaded)]
            outcomes = await stage.look(waits)
        starts = stage.fleet.starts
        finding = Finding(
            jobs=self.jobs,
            seconds=outcomes[0].seconds,
            latencies=measured.result.latencies(starts),
            verdict=sum((each.verdict for each in outcomes), Verdict()),
            more={
                "capacity_jobs_per_s": jobs_per_s,
                "loaded": {str(percent): each.latencies(starts) for percent, each in zip(PERCENT, loaded, strict=True)},
            },
            settings={
                "callers": 1,
                "batch_jobs": 1,
                "capacity_callers": load.CALLERS,
                "capacity_batch_jobs": load.BATCH_JOBS,
                "load_callers": CALLERS,
                "load_seconds": self.load_seconds,
            },
        )
        return stage.report(NAME, measured, finding)

    async def _idle(self, stage: Stage) -> Submits:
        """Submit a job, wait until it has started and then until its end is committed, and so on."""
        client, spec, starts = stage.system.client, stage.spec, stage.fleet.starts
        due_at: dict[int, float] = {}
        began_at = time.monotonic()
        self.progress.begin("jobs", self.jobs)
        for done in range(1, self.jobs + 1):
            called_at = time.monotonic()
            job_id = await client.submit(spec)
            due_at[job_id] = called_at
            # Told by the worker itself: whoever asked the server meanwhile would be in the job's way.
            if not (await starts.seen(job_id, load.STALL_SECONDS) and await load.ends(client, job_id)):
                break
            self.progress.reached(done)
        heard_at = time.monotonic()
        return Submits(due_at=due_at, wait=load.Wait(ids=array("q", due_at), began_at=began_at, heard_at=heard_at))

    async def _loaded(self, stage: Stage, jobs_per_s: float) -> Submits:
        """Submit at a rate for some seconds, then wait for the last one's end."""
        jobs = max(1, round(jobs_per_s * self.load_seconds))
        began_at = time.monotonic()
        schedule = Schedule(jobs=jobs, jobs_per_s=jobs_per_s, began_at=began_at)
        due_at = await submit_on_schedule(stage.system.wire, entry(stage.spec), schedule)
        ids = array("q", sorted(due_at))
        heard_at = await load.wait(stage.system.client, ids, self.progress)
        return Submits(due_at=due_at, wait=load.Wait(ids=ids, began_at=began_at, heard_at=heard_at))
