"""`python -m benchmarks.bars` measures, keeps the figures, and prints what they say of the bars."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.processes import gone, processes_of
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 120.0


@asynccontextmanager
async def running(folder: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start it with its temporary files and figures in `folder`; at the end it does not run any more."""
    for name in ("tmp", "kept"):
        (folder / name).mkdir()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.bars", *arguments, "--rounds", "1", "--keep", str(folder / "kept")),
        env={**os.environ, "TMPDIR": str(folder / "tmp")},
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            assert await gone(process.pid)
    assert os.listdir(folder / "tmp") == []
    assert processes_of(str(folder)) == []


async def test_a_run_is_measured_kept_and_shown(folder: Path) -> None:
    async with running(folder, "delayed") as process, asyncio.timeout(SECONDS):
        out, err = await process.communicate()

    assert process.returncode == 0, err.decode()
    assert os.listdir(folder / "kept") == ["delayed.json"]
    document = json.loads((folder / "kept" / "delayed.json").read_text())
    [figures] = document["rounds"]
    assert (figures["scenario"], figures["jobs"], figures["lost"]) == ("delayed", 10_000, 0)
    [row] = [line for line in out.decode().splitlines() if "10,000 due within a second" in line]
    assert f"| {figures['latency_ms']['p99']:.3g} ms |" in row


async def test_an_interrupt_ends_what_runs_and_keeps_nothing(folder: Path) -> None:
    async with running(folder, "throughput") as process:
        await until(lambda: bool(list((folder / "tmp").glob("orqestra-bench-*/postgres"))), SECONDS)

        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(SECONDS):
            out, err = await process.communicate()

    assert process.returncode == 1
    assert (out, b"Traceback" in err) == (b"", False)
    assert os.listdir(folder / "kept") == []
