"""Load runs through the whole system: submit to committed end, every process real, everything durable.

All processes and this client share the machine. A job counts once its end is committed in Postgres; a
run in which one is lost or ends otherwise fails.
"""

import asyncio
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any

import asyncpg
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from orqestra.client import Client
from orqestra.embedded.stack import Stack
from orqestra.model.job import JobSpec

NOOP_JOBS = 20_000
SHELL_JOBS = 2_000
LATENCY_JOBS = 200
BATCH = 1000
CALLERS = 4
RUN_SECONDS = 120
POLL_SECONDS = 0.02

NOOP = JobSpec(type="noop")
TRUE = JobSpec(type="shell", payload=b'{"command": "true"}')


@dataclass(frozen=True)
class System:
    """A running system, a client of it, and a look into its database."""

    runner: asyncio.Runner
    client: Client
    database: "asyncpg.Connection[asyncpg.Record]"

    def run(self, spec: JobSpec, jobs: int) -> None:
        """Submit jobs in batches from a few callers at once and wait until all have ended well."""
        self.runner.run(self._run(spec, jobs))

    def latencies_ms(self, jobs: int) -> list[float]:
        """Submit one job at a time to the idle system; return the times until the client sees its end."""
        return self.runner.run(self._latencies(jobs))

    async def _run(self, spec: JobSpec, jobs: int) -> None:
        before = await self._completed()
        batches = [[spec] * min(BATCH, jobs - at) for at in range(0, jobs, BATCH)]

        async def call() -> None:
            while batches:
                await self.client.submit_many(batches.pop())

        await asyncio.gather(*(call() for _ in range(CALLERS)))
        async with asyncio.timeout(RUN_SECONDS):
            while await self._completed() < before + jobs:
                await asyncio.sleep(POLL_SECONDS)
        assert await self._completed() == before + jobs

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

    async def _completed(self) -> int:
        counted = await self.database.fetchval("SELECT count(*) FROM jobs WHERE state = 'completed'")
        return int(counted)


def pedantic(benchmark: BenchmarkFixture) -> Callable[..., Any]:
    """Return the method that pytest-benchmark gives no types."""
    method: Callable[..., Any] = benchmark.pedantic
    return method


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    with tempfile.TemporaryDirectory(prefix="orqestra-bench-") as directory, asyncio.Runner() as runner:
        stack = Stack(Path(directory), workers=2, slots=2 * (os.cpu_count() or 1))
        runner.run(stack.start())
        client = Client(stack.grpc_addr)
        database = runner.run(asyncpg.connect(stack.db_url))
        try:
            yield System(runner=runner, client=client, database=database)
        finally:
            runner.run(database.close())
            runner.run(client.close())
            runner.run(stack.stop())


@pytest.mark.benchmark(group="end to end")
def test_noop_jobs(benchmark: BenchmarkFixture, system: System) -> None:
    benchmark.extra_info["jobs"] = NOOP_JOBS
    pedantic(benchmark)(system.run, (NOOP, NOOP_JOBS), rounds=3, warmup_rounds=1)


@pytest.mark.benchmark(group="end to end")
def test_shell_jobs(benchmark: BenchmarkFixture, system: System) -> None:
    benchmark.extra_info["jobs"] = SHELL_JOBS
    pedantic(benchmark)(system.run, (TRUE, SHELL_JOBS), rounds=3, warmup_rounds=1)


@pytest.mark.benchmark(group="submit to end, idle")
def test_latency(benchmark: BenchmarkFixture, system: System) -> None:
    latencies = pedantic(benchmark)(system.latencies_ms, (LATENCY_JOBS,), rounds=1, warmup_rounds=1)
    cuts = quantiles(latencies, n=100)
    benchmark.extra_info |= {"jobs": LATENCY_JOBS, "p50_ms": round(cuts[49], 2), "p99_ms": round(cuts[98], 2)}
