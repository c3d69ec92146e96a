"""Scenario `shell`: short commands through the whole system, beside what bare threads start.

Each job is a command that a shell runs, and its output is captured. The limit is the same command in
the same shell, started and waited for by two Rust threads and nothing else, on the same machine: right
before the load and right after it, since machines drift. Everything shares the CPUs, so what the system
needs for a job besides its command is what keeps the ratio from 1.
"""

from dataclasses import dataclass
from typing import Any, Final

from orqestra.bench import limit, load, processes
from orqestra.bench.machine import machine, versions
from orqestra.bench.report import Latencies, Report
from orqestra.bench.system import System
from orqestra.client import JobSpec, shell_payload

NAME: Final = "shell"
JOBS: Final = 10_000
COMMAND: Final = "true"


@dataclass(frozen=True, kw_only=True)
class Shell:
    """The scenario with its choices. Every job is the same `command`."""

    progress: load.Progress
    jobs: int = JOBS
    command: str = COMMAND

    async def __call__(self, system: System) -> Report:
        """Measure the limit, run the load, measure the limit again, then look at every job."""
        argv = ("sh", "-c", self.command)
        settings = await self._settings(system)
        limit_before = await limit.commands_per_s(argv)
        before = processes.look()
        wait = await load.run(system.client, self._spec(), self.jobs, self.progress)
        after = processes.look()
        limit_after = await limit.commands_per_s(argv)
        usages = processes.usages(system.roots, before, after)
        outcome = await load.look_at_all(system.client, wait)
        return Report(
            scenario=NAME,
            jobs=self.jobs,
            seconds=outcome.seconds,
            limits_per_s=(limit_before, limit_after),
            xargs_per_s=await limit.xargs_per_s(argv, limit_after),
            latencies=Latencies.of(outcome.latencies),
            processes=usages,
            lost=outcome.lost,
            duplicated=outcome.duplicated,
            failed=outcome.failed,
            settings=settings,
            machine=machine(),
            versions=versions() | dict(system.versions),
        )

    def _spec(self) -> JobSpec:
        return JobSpec(payload=shell_payload(self.command), tags=(load.TAG,))

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
        }
