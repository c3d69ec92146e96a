"""Scenario `delayed`: jobs that become due within one second; how late does each start?

All are stored before the first is due; one that starts too early has failed. Starts are told by our own
workers; a due time is one of the wall clock, so Postgres must be on this machine, or its clock must agree
with ours.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from orqestra.bench import load
from orqestra.bench.journal import Starts
from orqestra.bench.measure import beside_limit
from orqestra.bench.progress import Progress
from orqestra.bench.report import Latencies, Report, Verdict
from orqestra.bench.stage import Finding, Stage, staged
from orqestra.bench.system import System
from orqestra.bench.wire import entry
from orqestra.bench.workers import Crew
from orqestra.model.errors import StartFailed

NAME: Final = "delayed"
JOBS: Final = 10_000
WITHIN_SECONDS: Final = 1.0
# From now to the first due time: to encode and store all, with room to spare.
LEAD_SECONDS: Final = 2.0
LEAD_JOBS_PER_S: Final = 5000
NANOSECONDS: Final = 1e9
# So far may the wall clock be corrected while the jobs wait.
CLOCK_SECONDS: Final = 0.005


@dataclass(frozen=True, kw_only=True)
class Due:
    """When each job is due, by its id, on the wall clock; and how the load went."""

    at: Mapping[int, float]
    wait: load.Wait

    def late_seconds(self, starts: Starts) -> list[float]:
        """Return how long after that each of those started that did."""
        wall = time.time() - time.monotonic()
        return [
            wall + starts.at_ns[job_id] / NANOSECONDS - at for job_id, at in self.at.items() if job_id in starts.at_ns
        ]


def early_starts(late_seconds: Sequence[float]) -> int:
    """Return how many started before they were due."""
    return sum(seconds < -CLOCK_SECONDS for seconds in late_seconds)


@dataclass(frozen=True, kw_only=True)
class Delayed:
    """The scenario with its choices."""

    progress: Progress
    crew: Crew
    jobs: int = JOBS

    async def __call__(self, system: System) -> Report:
        """Store the jobs, wait until all have become due and ended, beside the limit."""
        async with staged(system, self.progress, self.crew) as stage:

            async def run() -> Due:
                return await self._run(stage)

            measured = await beside_limit(stage.cycles_per_s, stage.roots, run)
            await stage.fleet.stop()
            [outcome] = await stage.look([measured.result.wait])
        late = measured.result.late_seconds(stage.fleet.starts)
        early = early_starts(late)
        finding = Finding(
            jobs=self.jobs,
            seconds=outcome.seconds,
            latencies=Latencies.of(late),
            verdict=outcome.verdict + Verdict(failed=early),
            more={"early": early},
            settings={"callers": 1, "due_within_seconds": WITHIN_SECONDS},
        )
        return stage.report(NAME, measured, finding)

    async def _run(self, stage: Stage) -> Due:
        first_at = time.time() + LEAD_SECONDS + self.jobs / LEAD_JOBS_PER_S
        due = [first_at + number * WITHIN_SECONDS / self.jobs for number in range(self.jobs)]
        entries = [entry(replace(stage.spec, at=datetime.fromtimestamp(at, UTC))) for at in due]
        ids = await load.submit_each(stage.system.wire, entries)
        seconds_ahead = first_at - time.time()
        if seconds_ahead < 0:
            raise StartFailed(
                f"the last job was stored {-seconds_ahead:.1f} s after the first was due: too slow to measure"
            )
        began_at = time.monotonic() + seconds_ahead
        ordered = sorted(ids)
        heard_at = await load.wait(stage.system.client, ordered, self.progress)
        wait = load.Wait(ids=ordered, began_at=began_at, heard_at=heard_at)
        return Due(at=dict(zip(ids, due, strict=True)), wait=wait)
