"""Waiting for what tells nobody when it happens: a file that grows, a process elsewhere."""

import asyncio
from collections.abc import Callable

PATIENCE_SECONDS = 20.0
LOOK_SECONDS = 0.02


async def until(condition: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    """Return once `condition` holds; TimeoutError after `seconds`."""
    async with asyncio.timeout(seconds):
        while True:
            if condition():
                return
            await asyncio.sleep(LOOK_SECONDS)
