"""Scenario `throughput`: how many jobs a second go through the whole system, from submit to committed end.

The jobs do nothing, so that all the time is the system's own. They are submitted in batches while workers
of our own work.
"""

from dataclasses import dataclass
from typing import Final

from orqestra.bench import load
from orqestra.bench.measure import beside_limit
from orqestra.bench.progress import Progress
from orqestra.bench.report import Latencies, Report
from orqestra.bench.stage import Finding, staged
from orqestra.bench.system import System
from orqestra.bench.workers import Crew

NAME: Final = "throughput"
JOBS: Final = 100_000


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """The scenario with its choices."""

    progress: Progress
    crew: Crew
    jobs: int = JOBS

    async def __call__(self, system: System) -> Report:
        """Measure the limit, run the load, measure the limit again, then look at every job."""
        async with staged(system, self.progress, self.crew) as stage:

            async def run() -> load.Wait:
                return await stage.run(self.jobs)

            measured = await beside_limit(stage.cycles_per_s, stage.roots, run)
            await stage.fleet.stop()
            [outcome] = await stage.look([measured.result])
            finding = Finding(
                jobs=self.jobs,
                seconds=outcome.seconds,
                latencies=Latencies.of(outcome.latencies),
                verdict=outcome.verdict,
            )
            return stage.report(NAME, measured, finding)
