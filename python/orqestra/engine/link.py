"""The link to Redis: whether it serves, and what is done when it comes back."""

from collections.abc import Callable
from typing import Final

from orqestra.clock import Clock
from orqestra.engine.lanes import Lanes
from orqestra.log import get_logger
from orqestra.model.errors import HintsUnavailable
from orqestra.queue.hints import Hints
from orqestra.service import Service

CHECK_SECONDS: Final = 1.0
GOOD_POLICY: Final = "noeviction"

log = get_logger(__name__)


class Link(Service):
    """Knows whether Redis serves. Coming back means: mark all lanes partial, and the refill does the rest."""

    def __init__(self, clock: Clock, hints: Hints, lanes: Lanes) -> None:
        super().__init__("redis", clock)
        self.up = False
        self._hints = hints
        self._lanes = lanes
        self._back: list[Callable[[], None]] = []
        self._told = False
        self._identity = ""

    def on_return(self, call: Callable[[], None]) -> None:
        """Call this each time after all lanes have been marked."""
        self._back.append(call)

    def lost(self, reason: str) -> None:
        """Note that Redis does not serve: dispatch goes on from Postgres until the next look."""
        if self.up:
            log.warning("redis does not serve, dispatching from Postgres", reason=reason)
        self.up = False
        self.wake()

    async def run_once(self) -> float | None:
        """Look after Redis; a Redis that is away is not an error of this loop."""
        try:
            identity = await self._hints.identity()
            if self.up and identity == self._identity:
                await self._hints.recover()
            else:
                if self.up:
                    # Not the Redis we filled, though it may have the epoch: restarted from an old dump, or another.
                    log.warning("redis was restarted or replaced")
                await self._return()
                self._identity = identity
        except HintsUnavailable as error:
            if not self._told:
                log.warning("redis is away, dispatching from Postgres", reason=str(error))
            self._told = True
            self.up = False
        return CHECK_SECONDS

    async def _return(self) -> None:
        policy = await self._hints.policy()
        if policy is not None and policy != GOOD_POLICY:
            log.warning("redis may evict hints; set maxmemory-policy noeviction", policy=policy)
        await self._lanes.load()
        await self._hints.mark(self._lanes.ids, set_epoch=True)
        self.up = True
        self._told = False
        log.info("redis serves", lanes=len(self._lanes.ids))
        for call in self._back:
            call()
