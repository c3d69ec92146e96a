"""The measurement of many workers runs, and its figures are those of jobs that all ended."""

import asyncio
import json
import signal
import sys
from pathlib import Path

from tests.support.processes import gone

SECONDS = 60
STOP_SECONDS = 15.0
STREAMS = 3
ROOT = Path(__file__).resolve().parents[2]


async def test_a_few_streams_are_measured(tmp_path: Path) -> None:
    written = tmp_path / "fleet.json"
    quick = ("--settle-seconds", "0", "--idle-seconds", "0.5", "--rate", "50", "--rate-seconds", "1", "--jobs", "300")

    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.fleet", "--streams", str(STREAMS), "--slots", "30"),
        *(*quick, "--json", str(written)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(SECONDS):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            # So that it still ends what it has started.
            process.send_signal(signal.SIGINT)
            if not await gone(process.pid, STOP_SECONDS):
                process.kill()
            await process.wait()

    assert process.returncode == 0
    assert "a stream adds" in out.decode()
    [found] = json.loads(written.read_text())["fleet"]
    assert (found["streams"], found["slots"], found["open_at_end"]) == (STREAMS, 10, STREAMS)
    assert 0 < found["latencies"]["p50"] <= found["latencies"]["p99"]
    assert found["jobs_per_s"] > 0
    assert found["claimed_again"] == 0
