"""Scenario `limit`: what the machine can do at best, and nothing of ours: the raw Postgres cycle, the raw spawns.

What it says of jobs is of the cycle, which is its own limit: the ratio says how steady the machine was.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from orqestra.bench import limit, processes
from orqestra.bench.cycle import BATCH_JOBS, CONNECTIONS
from orqestra.bench.machine import machine, version_of, versions
from orqestra.bench.processes import Root
from orqestra.bench.report import Report, Verdict
from orqestra.bench.stage import LIMIT_OF
from orqestra.embedded import postgres
from orqestra.embedded.foreground import run_until_signal
from orqestra.embedded.postgres import EmbeddedPostgres

NAME: Final = "limit"
COMMAND: Final = ("sh", "-c", "true")


async def measure_limits(postgres_url: str, seconds: float, roots: Sequence[Root] = ()) -> Report:
    """Measure the cycle, the spawns, and the cycle again; each for so many seconds."""
    looked = processes.look()
    before = await limit.raw_cycle(postgres_url, seconds)
    spawns_per_s = await limit.commands_per_s(COMMAND, seconds)
    xargs_per_s = await limit.xargs_per_s(COMMAND, spawns_per_s, seconds)
    after = await limit.raw_cycle(postgres_url, seconds)
    return Report(
        scenario=NAME,
        jobs=before.jobs + after.jobs,
        seconds=before.seconds + after.seconds,
        limits_per_s=(before.jobs_per_s, after.jobs_per_s),
        limit_of=LIMIT_OF,
        latencies=None,
        processes=processes.usages(roots, looked, processes.look()),
        verdict=Verdict(),
        settings={
            "embedded": bool(roots),
            "limit_batch_jobs": BATCH_JOBS,
            "limit_connections": CONNECTIONS,
            "limit_threads": limit.LIMIT_THREADS,
            "limit_seconds": seconds,
        },
        machine=machine(),
        versions=versions() | ({"postgres": version_of(postgres.find_binaries() / "postgres")} if roots else {}),
        more={"spawns_per_s": spawns_per_s, "xargs_per_s": xargs_per_s},
    )


async def measure_limits_on_our_own(seconds: float) -> Report | None:
    """Do so on a Postgres that is started for it and gone afterwards. Returns None if a signal ended it."""

    async def measure() -> Report:
        with tempfile.TemporaryDirectory(prefix="orqestra-bench-") as directory:
            server = EmbeddedPostgres(Path(directory) / "postgres")
            try:
                await server.start()
                roots = [Root(name="postgres", pid=server.child.pid)]
                return await measure_limits(server.url(), seconds, roots)
            finally:
                await server.stop()

    return await run_until_signal(None, measure())
