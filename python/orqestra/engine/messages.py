"""Messages: what servers tell each other. A lost message costs at most a second."""

from collections.abc import Callable, Sequence
from typing import Final

from orqestra.engine.core import Core
from orqestra.model.errors import HintsUnavailable
from orqestra.queue.hints import Cancelled, Changed, Wake
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
