"""Load runs through the whole system: submit to committed end, every process real, everything durable.

All processes and this client share the machine. A job counts once its end is committed in Postgres; a
run in which one is lost or ends otherwise fails. Beside it is what the same machine can do at best with as many
jobs: the raw cycle of Postgres, and commands started by two bare threads.
"""

import asyncio
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Final

import asyncpg
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.bare import Sql
from benchmarks.measuring import Beside, Load, compare, measure
from orqestra._dispatch import spawn_limit
from orqestra.bench import load
from orqestra.bench.cycle import PAYLOAD
from orqestra.bench.limit import raw_cycle
from orqestra.bench.progress import Unseen
from orqestra.client import Client
from orqestra.embedded.stack import Stack
from orqestra.model.job import JobSpec

NOOP_JOBS: Final = 20_000
SHELL_JOBS: Final = 2_000
MANY_NOOP_JOBS: Final = 200_000
MANY_SHELL_JOBS: Final = 10_000
LATENCY_JOBS: Final = 200
ROUNDS: Final = 3
COMPLETED: Final = "SELECT count(*) FROM jobs WHERE id BETWEEN $1 AND $2 AND state = 'completed'"
LIMIT_SECONDS: Final = 1.0
LIMIT_THREADS: Final = 2

NOOP: Final = JobSpec(type="noop", payload=PAYLOAD, tags=(load.TAG,))
TRUE: Final = JobSpec(type="shell", payload=b'{"command": "true"}', tags=(load.TAG,))


@dataclass(frozen=True)
class System:
    """A running system, a client of it, a look into its database, and where the raw cycle is measured."""

    runner: asyncio.Runner
    client: Client
    database: Sql
    limit_url: str

    def run(self, spec: JobSpec, jobs: int) -> None:
        """Submit jobs in batches from a few callers at once and wait until all have ended well."""
        self.runner.run(self._run(spec, jobs))

    def latencies_ms(self, jobs: int) -> list[float]:
        """Submit one job at a time to the idle system; return the times until the client sees its end."""
        return self.runner.run(self._latencies(jobs))

    def cycle_seconds(self, jobs: int) -> float:
        """Return how long as many take in the raw cycle."""
        return jobs / self.runner.run(raw_cycle(self.limit_url, LIMIT_SECONDS)).jobs_per_s

    async def _run(self, spec: JobSpec, jobs: int) -> None:
        ids = await load.submit(self.client.submit_many, load.batches([spec], jobs))
        await load.wait(self.client, ids, Unseen())
        assert await self.database.fetchval(COMPLETED, ids[0], ids[-1]) == jobs

    async def _latencies(self, jobs: int) -> list[float]:
        loop = asyncio.get_running_loop()
        taken = []
        for _ in range(jobs):
            began = loop.time()
            job_id = await self.client.submit(NOOP)
            async for job in self.client.watch(job_id):
                if job.finished_at is not None:
                    break
            taken.append((loop.time() - began) * 1000)
        return taken


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    with tempfile.TemporaryDirectory(prefix="orqestra-bench-") as directory, asyncio.Runner() as runner:
        stack = Stack(Path(directory), workers=2)
        runner.run(stack.start())
        client = Client(stack.grpc_addr)
        database = runner.run(asyncpg.connect(stack.db_url))
        limit_url = stack.postgres.url("postgres")
        try:
            yield System(runner=runner, client=client, database=database, limit_url=limit_url)
        finally:
            runner.run(database.close())
            runner.run(client.close())
            runner.run(stack.stop())


@pytest.mark.benchmark(group="end to end")
def test_noop_jobs(benchmark: BenchmarkFixture, system: System) -> None:
    compare_noop(benchmark, system, NOOP_JOBS)


@pytest.mark.benchmark(group="end to end")
def test_shell_jobs(benchmark: BenchmarkFixture, system: System) -> None:
    compare_shell(benchmark, system, SHELL_JOBS)


@pytest.mark.full
@pytest.mark.benchmark(group="end to end")
def test_many_noop_jobs(benchmark: BenchmarkFixture, system: System) -> None:
    compare_noop(benchmark, system, MANY_NOOP_JOBS)


@pytest.mark.full
@pytest.mark.benchmark(group="end to end")
def test_many_shell_jobs(benchmark: BenchmarkFixture, system: System) -> None:
    compare_shell(benchmark, system, MANY_SHELL_JOBS)


@pytest.mark.benchmark(group="submit to end, idle")
def test_latency(benchmark: BenchmarkFixture, system: System) -> None:
    latency = Load(unit="jobs", count=LATENCY_JOBS, rounds=1)
    latencies = measure(benchmark, latency, lambda: system.latencies_ms(LATENCY_JOBS))
    cuts = quantiles(latencies, n=100)
    benchmark.extra_info |= {"p50_ms": round(cuts[49], 2), "p99_ms": round(cuts[98], 2)}


def compare_noop(benchmark: BenchmarkFixture, system: System, jobs: int) -> None:
    beside = Beside(what="raw Postgres cycle", seconds=lambda: system.cycle_seconds(jobs))
    compare(benchmark, Load(unit="jobs", count=jobs, rounds=ROUNDS), beside, lambda: system.run(NOOP, jobs))


def compare_shell(benchmark: BenchmarkFixture, system: System, jobs: int) -> None:
    argv = [b"sh", b"-c", b"true"]
    beside = Beside(what="2 bare threads", seconds=lambda: jobs / spawn_limit(argv, LIMIT_THREADS, LIMIT_SECONDS))
    compare(benchmark, Load(unit="jobs", count=jobs, rounds=ROUNDS), beside, lambda: system.run(TRUE, jobs))
