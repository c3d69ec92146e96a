"""Many workers on one server, and what happens when all of them have to come back at once."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import psutil

from tests.chaos.cell import Cell, Stage
from tests.chaos.crowd import NAME
from tests.chaos.kill_cells import RESTART_SECONDS
from tests.chaos.nodes import Server, Shape

ROOT: Final = Path(__file__).resolve().parents[2]
LEASE_15: Final = Shape(servers=1, workers=2, lease_seconds=15)
STREAMS: Final = 2000
PROCESSES: Final = 2
BACK_SECONDS: Final = 30.0
GATHER_SECONDS: Final = 60.0
# From when all are back: what was submitted meanwhile has waited.
BOUND_SECONDS: Final = 5.0
JOBS_PER_SECOND: Final = 20.0
IDLE_SECONDS: Final = 5.0
POLL_SECONDS: Final = 0.1
# After all are back: a look at leases that were about to lapse meanwhile.
WATCH_SECONDS: Final = 3.0
HELD_JOBS: Final = 4
KB_PER_MB: Final = 1024


async def storm(stage: Stage) -> None:
    """The one server of thousands of streams is killed: all come back, and no lease lapses over it."""
    [server] = stage.cluster.servers
    held = [await stage.held_job() for _ in range(HELD_JOBS)]
    before_mb = server.resident_mb()
    async with _crowd(server, STREAMS):
        began = time.time()
        await _until_there(stage, STREAMS, since=0.0, seconds=GATHER_SECONDS)
        stage.figures["streams"] = STREAMS
        stage.figures["gathered_s"] = round(time.time() - began, 1)
        stage.figures["kb_per_stream"] = round((server.resident_mb() - before_mb) * KB_PER_MB / STREAMS)
        stage.figures["idle_cpu"] = await _cpu_share(server)
        stage.fault()
        await server.kill()
        await asyncio.sleep(RESTART_SECONDS)
        server.start()
        restarted_at = time.time()
        # Service does not wait for all of them.
        await stage.ended(await stage.clients.submit())
        stage.figures["first_job_s"] = round(time.time() - restarted_at, 1)
        await _until_there(stage, STREAMS, since=stage.fault_at, seconds=GATHER_SECONDS)
        back_s = time.time() - restarted_at
        stage.figures["back_s"] = round(back_s, 1)
        stage.demand(
            back_s <= BACK_SECONDS, f"all streams were back after {back_s:.1f} s, the bound is {BACK_SECONDS:g} s"
        )
        stage.healed()
        stage.starts.update(dict.fromkeys(held, (1, 1)))
        stage.release()
        await stage.recovered()
        await asyncio.sleep(WATCH_SECONDS)
        await _demand_no_lapse(stage)


def crowd_cells() -> list[Cell]:
    """Return the cells."""
    return [
        Cell(
            point="2,000 streams, killed and restarted",
            victim="server",
            act=storm,
            bound_seconds=BOUND_SECONDS,
            jobs_per_second=JOBS_PER_SECOND,
            shape=LEASE_15,
            quiet=True,
            alone=True,
        )
    ]


@asynccontextmanager
async def _crowd(server: Server, count: int) -> AsyncIterator[None]:
    """Have a crowd of `count` in processes of its own; afterwards it is gone."""
    words = (sys.executable, "-P", "-m", "tests.chaos.crowd", f"127.0.0.1:{server.grpc_port}", str(count // PROCESSES))
    processes = [await asyncio.create_subprocess_exec(*words, cwd=ROOT, env=_environment()) for _ in range(PROCESSES)]
    try:
        yield
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
            await process.wait()


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}


async def _until_there(stage: Stage, count: int, *, since: float, seconds: float) -> None:
    """Return once so many of the crowd have a stream that they opened since then."""
    there = 0
    try:
        async with asyncio.timeout(seconds):
            while there < count:
                await asyncio.sleep(POLL_SECONDS)
                [row] = await stage.fetch(THERE, NAME, since)
                there = row["there"]
    except TimeoutError:
        raise TimeoutError(f"{there} of {count} streams were there after {seconds:g} s") from None


async def _cpu_share(server: Server) -> float:
    """Return how much of a CPU the server takes while its streams do nothing but beat."""
    process = psutil.Process(server.pid)
    before, began = process.cpu_times(), time.monotonic()
    await asyncio.sleep(IDLE_SECONDS)
    after, seconds = process.cpu_times(), time.monotonic() - began
    return round(float(after.user + after.system - before.user - before.system) / seconds, 2)


async def _demand_no_lapse(stage: Stage) -> None:
    [row] = await stage.fetch("SELECT count(*) AS lapsed FROM sessions WHERE closed_reason = 'lapsed'")
    stage.demand(row["lapsed"] == 0, f"{row['lapsed']} leases were closed as lapsed")


THERE: Final = """
SELECT count(DISTINCT worker_id) AS there FROM sessions
WHERE name = $1 AND closed_at IS NULL AND connected_at > to_timestamp($2)"""
