"""The link to Redis: whether it serves, and what is done when it comes back."""

from collections.abc import Callable
from typing import Final

from orqestra.clock import Clock
from orqestra.engine.lanes import Lanes
from orqestra.engine.repairs import Repair, Repairs
from orqestra.log import get_logger
from orqestra.model.errors import HintsUnavailable
from orqestra.queue.hints import Hints
from orqestra.service import Service

CHECK_SECONDS: Final = 1.0
GOOD_POLICY: Final = "noeviction"

log = get_logger(__name__)


class Link(Service):
    """Knows whether Redis serves. Coming back means: mark all lanes partial, and the refill does the rest.

    `address` is where it is looked for, for people. `trouble` says why it does not serve, None while it does.
    """

    def __init__(self, clock: Clock, hints: Hints, lanes: Lanes, repairs: Repairs, *, address: str) -> None:
        super().__init__("redis", clock)
        self.up = False
        self.trouble: str | None = "not looked for yet"
        self._hints = hints
        self._lanes = lanes
        self._repairs = repairs
        self._address = address
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
        self.trouble = reason
        self.wake()

    async def run_once(self) -> float | None:
        """Look after Redis; a Redis that is away is not an error of this loop."""
        try:
            identity = await self._hints.identity()
            if self.up and identity == self._identity:
                self._repairs.count(Repair.TAKE_FORGOTTEN, await self._hints.recover())
            else:
                if self.up:
                    # Not the Redis we filled, though it may have the epoch: restarted from an old dump, or another.
                    log.warning("redis was restarted or replaced")
                await self._return()
                self._identity = identity
        except HintsUnavailable as error:
            self._away(str(error))
        return CHECK_SECONDS

    async def _return(self) -> None:
        policy = await self._hints.policy()
        if policy is not None and policy != GOOD_POLICY:
            log.warning("redis may evict hints; set maxmemory-policy noeviction", policy=policy)
        await self._lanes.load()
        await self._hints.mark(self._lanes.ids, set_epoch=True)
        # The first time of a server that finds Redis in its place is how each one starts.
        self._repairs.count(Repair.REDIS_REBUILT, int(self._told or bool(self._identity)))
        self.up = True
        self.trouble = None
        self._told = False
        log.info("redis serves", lanes=len(self._lanes.ids))
        for call in self._back:
            call()

    def _away(self, reason: str) -> None:
        if not self._told:
            # One that was never there may well be a wrong setting; one that went away is not.
            tell = log.warning if self._identity else log.error
            tell("redis is away, dispatching from Postgres", address=self._address, setting="REDIS_ADDR", reason=reason)
        self._told = True
        self.up = False
        self.trouble = reason
