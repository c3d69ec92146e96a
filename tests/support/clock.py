"""A clock that stands still until a test moves it."""

import asyncio


class ManualClock:
    """`orqestra.clock.Clock` by hand: `advance` moves it and ends the waits that are over.

    `waiting(n)` returns once n tasks wait on it, so that a test never has to guess or sleep.
    """

    def __init__(self, start_seconds: float = 1000.0) -> None:
        self._now = start_seconds
        self._moved = asyncio.Condition()
        self._waits: list[float] = []

    def monotonic(self) -> float:
        return self._now

    def unix_ms(self) -> int:
        return 1_700_000_000_000 + round(self._now * 1000)

    async def wait(self, event: asyncio.Event, seconds: float) -> bool:
        if event.is_set() or seconds <= 0:
            await asyncio.sleep(0)
            return event.is_set()
        async with asyncio.TaskGroup() as group:
            happened = group.create_task(event.wait())
            elapsed = group.create_task(self._reach(self._now + seconds))
            await asyncio.wait({happened, elapsed}, return_when=asyncio.FIRST_COMPLETED)
            happened.cancel()
            elapsed.cancel()
        return event.is_set()

    async def advance(self, seconds: float) -> None:
        """Move on and return once every wait that is over by then has ended."""
        async with self._moved:
            self._now += seconds
            self._moved.notify_all()
            await self._moved.wait_for(lambda: all(due > self._now for due in self._waits))

    async def waiting(self, tasks: int = 1) -> tuple[float, ...]:
        """Return how long each of them still waits, the shortest first."""
        async with self._moved:
            await self._moved.wait_for(lambda: len(self._waits) >= tasks)
            return tuple(sorted(due - self._now for due in self._waits))

    async def _reach(self, due: float) -> None:
        async with self._moved:
            self._waits.append(due)
            self._moved.notify_all()
            try:
                await self._moved.wait_for(lambda: self._now >= due)
            finally:
                self._waits.remove(due)
                self._moved.notify_all()
