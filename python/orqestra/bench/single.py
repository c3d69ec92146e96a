"""Scenario `single`: many callers at once, each of which submits one job per call and waits for its id.

They share one client, as the parts of a program would. The same number of jobs is submitted in batches right
before and right after: `batch_jobs_per_s` is the mean of both, and `ratio_to_batch` what single calls cost.
"""

import asyncio
import time
from array import array
from dataclasses import dataclass
from typing import Final

from orqestra.bench import audit, load
from orqestra.bench.measure import beside_limit
from orqestra.bench.progress import Progress
from orqestra.bench.report import Latencies, Report, Verdict
from orqestra.bench.stage import Finding, Stage, staged
from orqestra.bench.system import System
from orqestra.bench.workers import Crew

NAME: Final = "single"
JOBS: Final = 20_000
CALLERS: Final = 256


@dataclass(frozen=True, kw_only=True)
class Single:
    """The scenario with its choices."""

    progress: Progress
    crew: Crew
    jobs: int = JOBS
    callers: int = CALLERS

    async def __call__(self, system: System) -> Report:
        """Submit in batches, then by single calls beside the limit, then in batches again."""
        calls: list[float] = []
        async with staged(system, self.progress, self.crew) as stage:

            async def run() -> load.Wait:
                return await self._call(stage, calls)

            first = await stage.run(self.jobs)
            measured = await beside_limit(stage.cycles_per_s, stage.roots, run)
            waits = [first, measured.result, await stage.run(self.jobs)]
            await stage.fleet.stop()
            before, single, after = await stage.look(waits)
        batch_jobs_per_s = audit.jobs_per_s(self.jobs, [before, after])
        finding = Finding(
            jobs=self.jobs,
            seconds=single.seconds,
            latencies=Latencies.of(calls),
            verdict=sum((each.verdict for each in (before, single, after)), Verdict()),
            more={
                "batch_jobs_per_s": batch_jobs_per_s,
                "ratio_to_batch": audit.jobs_per_s(self.jobs, [single]) / batch_jobs_per_s,
            },
            settings={
                "callers": self.callers,
                "batch_jobs": 1,
                "compare_callers": load.CALLERS,
                "compare_batch_jobs": load.BATCH_JOBS,
            },
        )
        return stage.report(NAME, measured, finding)

    async def _call(self, stage: Stage, calls: list[float]) -> load.Wait:
        """Have every caller submit until all jobs are; note how long each call took."""
        client, spec = stage.system.client, stage.spec
        ids = array("q")
        left = iter(range(self.jobs))

        async def call() -> None:
            for _ in left:
                called_at = time.monotonic()
                ids.append(await client.submit(spec))
                calls.append(time.monotonic() - called_at)

        began_at = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for _ in range(self.callers):
                group.create_task(call())
        ordered = array("q", sorted(ids))
        heard_at = await load.wait(client, ordered, self.progress)
        return load.Wait(ids=ordered, began_at=began_at, heard_at=heard_at)
