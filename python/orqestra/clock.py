"""Time, as everything in Orqestra is given it: tests hand in a clock that they move by hand.

Due times are never compared with this clock but with Postgres': it only measures silence, paces
loops and stamps what nobody compares.
"""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """What a part may know about time."""

    def monotonic(self) -> float:
        """Return seconds since some fixed moment; never goes back."""
        ...

    def unix_ms(self) -> int:
        """Return milliseconds since 1970 as this machine believes them; may jump either way."""
        ...

    async def wait(self, event: asyncio.Event, seconds: float) -> bool:
        """Return True once `event` is set, or False after `seconds`, and let other tasks run meanwhile."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def monotonic(self) -> float:
        """Return seconds of the clock that `asyncio` schedules by."""
        return time.monotonic()

    def unix_ms(self) -> int:
        """Return the machine's wall clock in milliseconds."""
        return time.time_ns() // 1_000_000

    async def wait(self, event: asyncio.Event, seconds: float) -> bool:
        """Wait in real time; `seconds` of 0 or less only lets the other tasks have their turn."""
        if event.is_set() or seconds <= 0:
            await asyncio.sleep(0)
            return event.is_set()
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return False
        return True
