"""What the machine can do at best, measured without any of us."""

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from orqestra._dispatch import spawn_limit
from orqestra.model.errors import StartFailed

LIMIT_SECONDS: Final = 3.0
LIMIT_THREADS: Final = 2
XARGS: Final = "xargs"
ERROR_CHARS: Final = 500


async def commands_per_s(argv: Sequence[str], seconds: float) -> float:
    """Return how many commands a second two bare threads start and see end."""
    return await asyncio.to_thread(spawn_limit, [word.encode() for word in argv], LIMIT_THREADS, seconds)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How limits are measured: how long each, and the cycle on which Postgres, if there is one."""

    postgres_url: str | None = None
    seconds: float = LIMIT_SECONDS


@dataclass(frozen=True, kw_only=True)
class Cycle:
    """How many jobs went through the raw cycle, and in how many seconds."""

    jobs: int
    seconds: float

    @property
    def jobs_per_s(self) -> float:
        """How many a second."""
        return self.jobs / self.seconds


async def raw_cycle(postgres_url: str, seconds: float) -> Cycle:
    """Measure how fast a bare table takes in jobs, lets claim and complete them (`cycle`).

    Raises StartFailed if Postgres does not let us measure.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "orqestra.bench.cycle", str(seconds)),
        env={**os.environ, "DB_URL": postgres_url},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        out, err = await process.communicate()
    finally:
        if process.returncode is None:
            # So that it still removes its schema.
            process.send_signal(signal.SIGINT)
            await process.wait()
    if process.returncode != 0:
        raise StartFailed(f"the raw cycle can't be measured: {err.decode(errors='replace').strip()[-ERROR_CHARS:]}")
    return Cycle(**json.loads(out))


async def xargs_per_s(argv: Sequence[str], expected_per_s: float, seconds: float) -> float | None:
    """Return how many commands a second `xargs -P2 -n1` starts; None if there is no xargs here.

    It runs as many as would take so many seconds at the speed expected. Each gets one word that none
    of ours looks at, and how it ends does not matter.
    """
    program = shutil.which(XARGS)
    if program is None:
        return None
    commands = max(LIMIT_THREADS, round(expected_per_s * seconds))
    words = "\n".join(map(str, range(commands))).encode()
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    process = await asyncio.create_subprocess_exec(
        *(program, f"-P{LIMIT_THREADS}", "-n1", *argv),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await process.communicate(words)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return commands / (loop.time() - began_at)
