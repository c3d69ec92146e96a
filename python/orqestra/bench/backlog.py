"""Scenario `backlog`: all jobs wait before the first worker comes; how fast are they drained then?

The clock runs from the first start to the last committed end. With `compare`, a backlog of that size is
drained too, twice before and twice after on the same system: `drain_ratio` is what the size leaves of the
speed.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from orqestra.bench import audit, load
from orqestra.bench.audit import Outcome
from orqestra.bench.measure import beside_limit
from orqestra.bench.progress import Progress
from orqestra.bench.report import Figure, Latencies, Report
from orqestra.bench.stage import Finding, Stage, staged, unstaffed
from orqestra.bench.system import System
from orqestra.bench.workers import Crew

NAME: Final = "backlog"
JOBS: Final = 100_000
COMPARE_ROUNDS: Final = 2
NANOSECONDS: Final = 1e9


@dataclass(frozen=True, kw_only=True)
class Backlog:
    """The scenario with its choices."""

    progress: Progress
    crew: Crew
    jobs: int = JOBS
    compare: int | None = None

    async def __call__(self, system: System) -> Report:
        """Drain small backlogs if wanted, the one that counts beside the limit, and small ones again."""
        async with staged(system, self.progress, self.crew) as warm:
            await warm.fleet.stop()
        compared = await self._compare(system)
        async with unstaffed(system, self.progress, self.crew) as stage:
            began_at = time.monotonic()
            ids = await load.submit(system.wire.submit, stage.noops(self.jobs))
            enqueue_jobs_per_s = self.jobs / (time.monotonic() - began_at)

            async def run() -> load.Wait:
                return await _drain(stage, ids)

            measured = await beside_limit(stage.cycles_per_s, stage.roots, run)
            await stage.fleet.stop()
            [outcome] = await stage.look([measured.result])
        compared += await self._compare(system)
        finding = Finding(
            jobs=self.jobs,
            seconds=outcome.seconds,
            latencies=Latencies.of(outcome.latencies),
            verdict=sum((each.verdict for each in compared), outcome.verdict),
            more={"enqueue_jobs_per_s": enqueue_jobs_per_s, **self._compared(outcome, compared)},
            settings={"compare": self.compare},
        )
        return stage.report(NAME, measured, finding)

    async def _compare(self, system: System) -> list[Outcome]:
        """Drain backlogs of the size to compare with, each with workers of its own."""
        outcomes: list[Outcome] = []
        for _ in range(COMPARE_ROUNDS if self.compare else 0):
            async with unstaffed(system, self.progress, self.crew) as stage:
                ids = await load.submit(system.wire.submit, stage.noops(self.compare or 0))
                wait = await _drain(stage, ids)
                await stage.fleet.stop()
                outcomes += await stage.look([wait])
        return outcomes

    def _compared(self, outcome: Outcome, compared: Sequence[Outcome]) -> Mapping[str, Figure]:
        if not self.compare:
            return {}
        compare_jobs_per_s = audit.jobs_per_s(self.compare, compared)
        return {
            "compare_jobs_per_s": compare_jobs_per_s,
            "drain_ratio": audit.jobs_per_s(self.jobs, [outcome]) / compare_jobs_per_s,
        }


async def _drain(stage: Stage, ids: Sequence[int]) -> load.Wait:
    """Start the workers and wait for the last end; it began when the first job did."""
    began_at = time.monotonic()
    await stage.fleet.start()
    heard_at = await load.wait(stage.system.client, ids, stage.progress)
    starts = stage.fleet.starts
    # What ran was told, or will be in a moment.
    if await starts.seen(ids[0], load.STALL_SECONDS) and starts.first_ns is not None:
        began_at = starts.first_ns / NANOSECONDS
    return load.Wait(ids=ids, began_at=began_at, heard_at=heard_at)
