"""Longer runs: faults by chance, one after the other on a cluster that is never made anew, or none at all."""

import asyncio
import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from orqestra.engine.repairs import Repair
from tests.chaos.cell import Cell, Stage
from tests.chaos.cluster import Cluster
from tests.chaos.nodes import Shape
from tests.chaos.proxy import Toxics
from tests.chaos.report import CellResult
from tests.chaos.runner import run_cell, running_cluster

SOAK: Final = Shape(servers=2, workers=3)
# A link is never perfect; most of the time it is nearly so.
LATENCIES_SECONDS: Final = (0.0, 0.0, 0.001, 0.005, 0.02)
# The one repair that may be part of a healthy life: the audit looks at what is under way as well.
HEALTHY_REPAIRS: Final = frozenset({Repair.HINT_MISSING})
COUNTER: Final = re.compile(r'^orqestra_repairs_total\{repair="(\w+)"\} ([0-9.e+]+)$', re.MULTILINE)


async def nemesis(
    cells: Sequence[Cell], minutes: float, *, seed: int, tell: Callable[[CellResult], None], keep: Path | None
) -> list[CellResult]:
    """Strike at random for so many minutes; the seed decides what and when."""
    chance = random.Random(seed)
    fitting = [replace(cell, shape=SOAK) for cell in cells if not cell.alone and cell.shape.clock_offsets is None]
    until = time.monotonic() + 60 * minutes
    results: list[CellResult] = []
    while time.monotonic() < until:
        async with running_cluster(SOAK, keep) as cluster:
            while time.monotonic() < until and not cluster.failed:
                _disturb(cluster, chance)
                result = await run_cell(cluster, chance.choice(fitting), seed=chance.randrange(1_000_000))
                results.append(result)
                tell(result)
                cluster.failed = not result.ok
    return results


async def healthy(minutes: float, *, seed: int, tell: Callable[[CellResult], None], keep: Path | None) -> CellResult:
    """Let a cluster work for so many minutes without any fault: no repair may have had anything to do."""

    async def act(stage: Stage) -> None:
        # A start finds an empty Redis, which is no fault of this time.
        before = await repairs(stage.cluster)
        stage.fault()
        await asyncio.sleep(60 * minutes)
        await stage.recovered()
        for name, count in (await repairs(stage.cluster)).items():
            stage.figures[name] = count - before[name]
            holds = stage.figures[name] == 0 or name in HEALTHY_REPAIRS
            stage.demand(holds, f"{stage.figures[name]:g} repairs of kind {name} without a fault")

    cell = Cell(
        point=f"no fault for {minutes:g} minutes", victim="nobody", act=act, bound_seconds=60 * minutes, shape=SOAK
    )
    async with running_cluster(SOAK, keep) as cluster:
        result = await run_cell(cluster, cell, seed=seed, seconds=60 * minutes + 60)
        cluster.failed = not result.ok
    tell(result)
    return result


async def repairs(cluster: Cluster) -> dict[str, float]:
    """Return how often each repair was needed, over all servers."""
    counts: dict[str, float] = {}
    for server in cluster.servers:
        for name, count in COUNTER.findall(await server.get("/metrics")):
            counts[name] = counts.get(name, 0.0) + float(count)
    assert counts, "the servers tell no repairs"
    return counts


def _disturb(cluster: Cluster, chance: random.Random) -> None:
    """Make the links of the workers a little worse, or better, than they were."""
    for worker in cluster.workers:
        worker.link.set(Toxics(latency_seconds=chance.choice(LATENCIES_SECONDS)))
