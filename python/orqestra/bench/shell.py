"""Scenario `shell`: short commands through the whole system, beside what bare threads start.

Each job is a command that a shell runs, and its output is captured. The limit is the same command in
the same shell, started and waited for by two Rust threads and nothing else, on the same machine: right
before the load and right after it, since machines drift. Everything shares the CPUs, so what the system
needs for a job besides its command is what keeps the ratio from 1.
"""

from dataclasses import dataclass
from typing import Any, Final

from orqestra.bench import audit, limit, load
from orqestra.bench.machine import machine, versions
from orqestra.bench.measure import beside_limit
from orqestra.bench.progress import Progress
from orqestra.bench.report import Latencies, Report
from orqestra.bench.system import System, new_name
from orqestra.bench.wire import entry
from orqestra.client import JobFilter, JobSpec, shell_payload

NAME: Final = "shell"
JOBS: Final = 10_000
COMMAND: Final = "true"


@dataclass(frozen=True, kw_only=True)
class Shell:
    """The scenario with its choices. Every job is the same `command`."""

    progress: Progress
    jobs: int = JOBS
    command: str = COMMAND

    async def __call__(self, system: System) -> Report:
        """Measure the limit, run the load, measure the limit again, then look at every job."""
        argv = ("sh", "-c", self.command)
        settings = await self._settings(system)
        own = new_name()
        spec = JobSpec(payload=shell_payload(self.command), tags=(load.TAG, own))
        batches = load.batches(entry(spec), self.jobs)

        async def run() -> load.Wait:
            return await load.run(system.client, system.wire, batches, self.progress)

        async def commands_per_s() -> float:
            return await limit.commands_per_s(argv, system.limits.seconds)

        async with system.leaving_none(JobFilter(tags=(own,))):
            measured = await beside_limit(commands_per_s, lambda: system.roots, run)
        assert measured.limits_per_s is not None
        [outcome] = await audit.look(system.source, [measured.result], self.progress)
        return Report(
            scenario=NAME,
            jobs=self.jobs,
            seconds=outcome.seconds,
            limits_per_s=measured.limits_per_s,
            limit_of="commands/s by bare threads",
            more={"xargs_per_s": await limit.xargs_per_s(argv, measured.limits_per_s[1], system.limits.seconds)},
            latencies=Latencies.of(outcome.latencies),
            processes=measured.processes,
            verdict=outcome.verdict,
            settings=settings,
            machine=machine(),
            versions=versions() | dict(system.versions),
        )

    async def _settings(self, system: System) -> dict[str, Any]:
        workers = await system.client.workers()
        return {
            "command": self.command,
            "embedded": system.is_ours,
            "workers": len(workers),
            "slots": sum(worker.slots for worker in workers),
            "batch_jobs": load.BATCH_JOBS,
            "callers": load.CALLERS,
            "limit_threads": limit.LIMIT_THREADS,
            "limit_seconds": system.limits.seconds,
        }
