"""Refill: brings partial lanes, and what becomes due soon, from Postgres back into Redis."""

import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from orqestra._dispatch import outbox
from orqestra.engine import packing
from orqestra.engine.core import Core
from orqestra.failpoint import Point, reached
from orqestra.log import get_logger
from orqestra.model.errors import HintsUnavailable
from orqestra.queue.hints import DELAYED_HINTS, HORIZON_MS
from orqestra.service import Service
from orqestra.store.database import Row

CHUNK: Final = 1000
HORIZON_SECONDS: Final = 60.0
# A minute more than the push keeps, so that nothing falls between two loads.
MARGIN_MS: Final = 60_000
HORIZON_PAGE: Final = 10_000
EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)

log = get_logger(__name__)


class Refill(Service):
    """Works off the lanes that takes report, and once a minute loads what is delayed."""

    max_silence_seconds = 60.0

    def __init__(self, core: Core) -> None:
        super().__init__("refill", core.clock)
        self._database = core.database
        self._hints = core.hints
        self._link = core.link
        self._pg_clock = core.pg_clock
        self._on_fill: list[Callable[[Sequence[int]], None]] = []
        self._partial: set[int] = set()
        self._horizon_due = True
        self._loaded_at = core.clock.monotonic()
        core.link.on_return(self._returned)

    def on_fill(self, call: Callable[[Sequence[int]], None]) -> None:
        """Call this with the lanes that have got hints."""
        self._on_fill.append(call)

    def ask(self, partial: Sequence[tuple[int, str]]) -> None:
        """Refill these lanes."""
        if partial:
            self._partial.update(lane for lane, _ in partial)
            self.wake()

    async def run_once(self) -> float | None:
        """Refill what was asked for; load the delayed horizon each minute and after Redis returned."""
        try:
            while self._partial and self._link.up:
                await self._refill(self._partial.pop())
            if self._link.up and self._is_horizon_due():
                await self._load_horizon()
        except HintsUnavailable as error:
            self._link.lost(str(error))
        return None

    def _filled(self, lanes: Sequence[int]) -> None:
        for call in self._on_fill:
            call(lanes)

    def _returned(self) -> None:
        self._horizon_due = True
        self.wake()

    def _is_horizon_due(self) -> bool:
        return self._horizon_due or self.clock.monotonic() - self._loaded_at >= HORIZON_SECONDS

    async def _refill(self, lane: int) -> None:
        name = secrets.token_hex(8)
        if not await self._hints.begin_refill(lane, name):
            return
        window = self._hints.window
        try:
            rows = await self._database.insist("peek_lanes", lane_ids=[lane], per_lane=window)
        except Exception:
            # Still to be done, and nobody else has to wait for it.
            self._partial.add(lane)
            await self._hints.end_refill(lane, name, whole=False)
            raise
        for at in range(0, len(rows), CHUNK):
            if not await self._hints.add_refill(lane, name, packing.hints(rows[at : at + CHUNK])):
                return
            self._filled([lane])
            reached(Point.REFILLING)
        await self._hints.end_refill(lane, name, whole=len(rows) < window)
        self._filled([lane])
        if rows:
            log.debug("lane refilled", lane=lane, hints=len(rows))

    async def _load_horizon(self) -> None:
        """Push what becomes due soon, page by page, the soonest first."""
        page: list[Row] = []
        loaded = 0
        from_at = EARLIEST
        while True:
            page = await self._database.insist(
                "list_delayed", from_at=from_at, horizon_ms=HORIZON_MS + MARGIN_MS, page=HORIZON_PAGE
            )
            if page and not await self._push_delayed(page):
                self._link.lost("the epoch is missing")
                return
            loaded += len(page)
            # A page full of one moment ends the load, and so does all that Redis holds: the rest is found
            # in the next minute, or once it is due.
            if len(page) < HORIZON_PAGE or page[-1]["available_at"] == from_at or loaded >= DELAYED_HINTS:
                break
            from_at = page[-1]["available_at"]
        self._horizon_due = False
        self._loaded_at = self.clock.monotonic()

    async def _push_delayed(self, rows: Sequence[Row]) -> bool:
        now_ms = self._pg_clock.now_ms()
        for push in outbox.drain([packing.entries(rows)], now_ms):
            if not await self._hints.push(push, now_ms + MARGIN_MS):
                return False
            self._filled(push.lanes)
        return True
