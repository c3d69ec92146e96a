"""What the machine can do at best, measured without any of us."""

import asyncio
import shutil
from collections.abc import Sequence
from typing import Final

from orqestra._dispatch import spawn_limit

LIMIT_SECONDS: Final = 2.0
LIMIT_THREADS: Final = 2
XARGS: Final = "xargs"


async def commands_per_s(argv: Sequence[str]) -> float:
    """Return how many commands a second two bare threads start and see end."""
    return await asyncio.to_thread(spawn_limit, [word.encode() for word in argv], LIMIT_THREADS, LIMIT_SECONDS)


async def xargs_per_s(argv: Sequence[str], expected_per_s: float) -> float | None:
    """Return how many commands a second `xargs -P2 -n1` starts; None if there is no xargs here.

    It runs as many as would take the time of the limit at the speed expected. Each gets one word that none
    of ours looks at, and how it ends does not matter.
    """
    program = shutil.which(XARGS)
    if program is None:
        return None
    commands = max(LIMIT_THREADS, round(expected_per_s * LIMIT_SECONDS))
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
