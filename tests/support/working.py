"""A real worker at work for a test, in its loop or as a process."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from orqestra.worker.daemon import Worker, WorkerOptions
from tests.support.worker_peer import PATIENCE_SECONDS, Peer


@asynccontextmanager
async def working(peer: Peer, tmp_path: Path, **changes: Any) -> AsyncIterator["asyncio.Task[int]"]:
    """A worker that runs until the block ends; the task is its exit code."""
    options: dict[str, Any] = {
        "addresses": (peer.address,),
        "name": "tested",
        "slots": 4,
        "queues": ("default",),
        "labels": {"arch": "any"},
        "state_dir": tmp_path / "state",
        "drain_seconds": 5.0,
        "orphan_seconds": 600.0,
    }
    worker = Worker(WorkerOptions(**options | changes))
    task = asyncio.create_task(worker.run())
    try:
        yield task
    finally:
        worker.stop()
        worker.stop()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await asyncio.wait([task])


@asynccontextmanager
async def worker_process(
    address: str, *options: str, under: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """`orqestra worker` in a process of its own, executed by `under` if that is given; gone after the block."""
    process = await asyncio.create_subprocess_exec(
        *(*under, sys.executable, "-m", "orqestra", "worker", "--server", address, *options),
        env={**os.environ, **(environment or {})},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


def held(messages: Any) -> dict[int, Any]:
    return {each.attempt.job_id: each.phase for each in messages}
