"""`make demo`: all that its summary promises holds, in time, and nothing of it is left."""

import asyncio
import os
import re
import sys
import time
from pathlib import Path

import pytest

from tests.support.processes import gone, processes_of

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60.0


@pytest.mark.alone
async def test_the_demonstration_keeps_its_promises(folder: Path) -> None:
    begin = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tools.demo"),
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(SECONDS):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            assert await gone(process.pid)
    text = output.decode()

    assert process.returncode == 0, text
    assert time.monotonic() - begin < SECONDS
    (held, promised) = re.findall(r"^(\d+) of (\d+) hold", text, re.MULTILINE)[0]
    assert held == promised
    assert text.count("  ok  ") == int(promised) > 10
    assert "Traceback" not in text
    assert processes_of(str(folder)) == []
    assert os.listdir(folder) == []
