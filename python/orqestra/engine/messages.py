"""Messages: what servers tell each other. A lost message costs at most a second.

Live output has a connection and a loop of its own, so that much of it delays no wake.
"""

from collections.abc import Callable, Sequence
from typing import Final

from orqestra.engine.core import Core
from orqestra.engine.live import Live
from orqestra.model.errors import HintsUnavailable
from orqestra.model.live import LiveChunk
from orqestra.queue.hints import Cancelled, Changed, Wake
from orqestra.queue.live import Wish
from orqestra.service import Service

AGAIN_SECONDS: Final = 1.0


class Messages(Service):
    """Listens to what other servers publish."""

    def __init__(
        self,
        core: Core,
        *,
        wake_lanes: Callable[[Sequence[int]], None],
        cancelled: Callable[[], None],
        changed: Callable[[Sequence[int]], None],
    ) -> None:
        super().__init__("messages", core.clock)
        self._hints = core.hints
        self._wake_lanes = wake_lanes
        self._cancelled = cancelled
        self._changed = changed

    async def run_once(self) -> float | None:
        """Listen until Redis goes away or the service stops."""
        try:
            async for message in self._hints.messages(changes=True):
                self.last_success = self.clock.monotonic()
                match message:
                    case Wake():
                        self._wake_lanes(message.lanes)
                    case Cancelled():
                        self._cancelled()
                    case Changed():
                        self._changed(message.ids)
                    case None:
                        self.ready.set()
                if self.stopping:
                    return None
        except HintsUnavailable:
            # The link tells; without Redis the loops look for themselves each second.
            return AGAIN_SECONDS
        return None


class LiveMessages(Service):
    """Listens to what other servers want to follow, and to what was written where this one follows."""

    def __init__(self, core: Core, live: Live) -> None:
        super().__init__("live messages", core.clock)
        self._channel = core.hints.live
        self._live = live

    async def run_once(self) -> float | None:
        """Listen until Redis goes away or the service stops."""
        try:
            async for message in self._channel.messages():
                self.last_success = self.clock.monotonic()
                match message:
                    case Wish():
                        self._live.asked(message)
                    case LiveChunk():
                        self._live.arrived(message)
                    case None:
                        self.ready.set()
                if self.stopping:
                    return None
        except HintsUnavailable:
            # The link tells; without Redis, followers at other servers wait for the end of the attempt.
            return AGAIN_SECONDS
        return None
