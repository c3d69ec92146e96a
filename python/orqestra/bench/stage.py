"""What the scenarios of jobs that do nothing stand on: a queue and workers of their own.

All of them are beside the same limit, the raw cycle of Postgres. Where there is no Postgres to measure it
on, there is no limit.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

from orqestra.bench import audit, limit, load
from orqestra.bench.audit import NO_FATES, Fate, Outcome
from orqestra.bench.cycle import BATCH_JOBS as CYCLE_JOBS
from orqestra.bench.cycle import CONNECTIONS, PAYLOAD
from orqestra.bench.machine import machine, versions
from orqestra.bench.measure import Measured
from orqestra.bench.processes import Root
from orqestra.bench.progress import Progress
from orqestra.bench.report import Figure, Latencies, Report, Verdict
from orqestra.bench.system import System, new_name
from orqestra.bench.wire import entry
from orqestra.bench.workers import Crew, Fleet
from orqestra.client import JobFilter, JobSpec, JobType

# Before the clock runs: connections, statements and code are used once.
WARM_UP_JOBS: Final = 2000
LIMIT_OF: Final = "jobs/s by the raw Postgres cycle"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a scenario found out by its load, as `Report` has it."""

    jobs: int
    seconds: float
    latencies: Latencies | None
    verdict: Verdict
    more: Mapping[str, Figure] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The system, our queue in it, and our workers on that."""

    system: System
    fleet: Fleet
    progress: Progress

    def roots(self) -> list[Root]:
        """The processes that we started."""
        return [*self.fleet.roots, *self.system.roots]

    @property
    def spec(self) -> JobSpec:
        """A job that does nothing, with as much to carry as a row of the limit."""
        return JobSpec(type=JobType.NOOP, payload=PAYLOAD, queue=self.fleet.queue, tags=(load.TAG,))

    async def cycles_per_s(self) -> float | None:
        """Return the limit; None if there is no Postgres to measure it on."""
        limits = self.system.limits
        if limits.postgres_url is None:
            return None
        return (await limit.raw_cycle(limits.postgres_url, limits.seconds)).jobs_per_s

    def noops(self, jobs: int) -> Iterable[bytes]:
        """Return batches of jobs that do nothing."""
        return load.batches(entry(self.spec), jobs)

    async def run(self, jobs: int) -> load.Wait:
        """Submit jobs that do nothing and wait for the last one's end."""
        return await load.run(self.system.client, self.system.wire, self.noops(jobs), self.progress)

    async def look(self, waits: Sequence[load.Wait], fates: Mapping[int, Fate] = NO_FATES) -> list[Outcome]:
        """Read every job of some loads, once the workers have stopped: what they told is looked at too."""
        outcomes = await audit.look(self.system.source, waits, self.progress, fates)
        doubled = max(outcomes[0].verdict.duplicated, self.fleet.starts.doubled)
        return [replace(outcomes[0], verdict=replace(outcomes[0].verdict, duplicated=doubled)), *outcomes[1:]]

    def report(self, scenario: str, measured: Measured[Any], finding: Finding) -> Report:
        """Return the report of a scenario."""
        return Report(
            scenario=scenario,
            jobs=finding.jobs,
            seconds=finding.seconds,
            limits_per_s=measured.limits_per_s,
            limit_of=LIMIT_OF,
            latencies=finding.latencies,
            processes=measured.processes,
            verdict=finding.verdict,
            settings={
                "embedded": self.system.is_ours,
                "workers": self.fleet.crew.workers,
                "slots": self.fleet.crew.workers * self.fleet.crew.slots,
                "batch_jobs": load.BATCH_JOBS,
                "callers": load.CALLERS,
                "payload_bytes": len(PAYLOAD),
                "limit_batch_jobs": CYCLE_JOBS,
                "limit_connections": CONNECTIONS,
                "limit_seconds": self.system.limits.seconds,
                **finding.settings,
            },
            machine=machine(),
            versions=versions() | dict(self.system.versions),
            more=finding.more,
        )


@asynccontextmanager
async def unstaffed(system: System, progress: Progress, crew: Crew) -> AsyncIterator[Stage]:
    """Have a stage with a queue of its own, whose workers are yet to be started."""
    fleet = Fleet(system.client, system.address, new_name(), crew)
    async with system.leaving_none(JobFilter(queue=fleet.queue)), fleet:
        yield Stage(system=system, fleet=fleet, progress=progress)


@asynccontextmanager
async def staged(system: System, progress: Progress, crew: Crew) -> AsyncIterator[Stage]:
    """Have a stage with workers at work, and all warm."""
    async with unstaffed(system, progress, crew) as stage:
        await stage.fleet.start()
        await stage.run(WARM_UP_JOBS)
        yield stage
