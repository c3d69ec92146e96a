"""Waiting for what tells nobody when it happens: a file that grows, a process elsewhere."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable

PATIENCE_SECONDS = 20.0
LOOK_SECONDS = 0.02


async def until(condition: Callable[[], bool | Awaitable[bool]], seconds: float = PATIENCE_SECONDS) -> None:
    """Return once `condition` holds, which may have to ask somebody; TimeoutError after `seconds`."""
    async with asyncio.timeout(seconds):
        while True:
            answer = condition()
            if await answer if inspect.isawaitable(answer) else answer:
                return
            await asyncio.sleep(LOOK_SECONDS)
