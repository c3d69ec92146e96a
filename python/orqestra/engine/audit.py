"""Audit: once a second one server compares what Redis should know with what it knows.

Nothing should be missing; a Redis that lost single writes, as after a failover, is healed by this.
"""

import random
from collections import defaultdict
from typing import Final

from orqestra.engine import packing
from orqestra.engine.core import Core
from orqestra.engine.lanes import Lanes
from orqestra.engine.repairs import Repair
from orqestra.engine.sessions import Sessions
from orqestra.log import get_logger
from orqestra.model.errors import HintsUnavailable
from orqestra.service import Service
from orqestra.store.database import Row

TICK_SECONDS: Final = 1.0
SPREAD: Final = (0.7, 1.3)
# What is overdue is nothing, and may take long to find: it stands behind the index entries of all jobs that ever
# waited, for as long as an old snapshot keeps vacuum from removing them. A twentieth of the time is the most for it.
REST: Final = 20.0
LANES_A_TICK: Final = 64
HINTS_PER_LANE: Final = 1000
# Younger ones may be on their way.
OLDER_MS: Final = 2000

log = get_logger(__name__)


class Audit(Service):
    """Looks at the lanes that a worker of this server serves, some each second, going round."""

    # A statement lasts no longer than five seconds, and a rest twenty times as long.
    max_silence_seconds = 150.0

    def __init__(self, core: Core, lanes: Lanes, sessions: Sessions) -> None:
        super().__init__("audit", core.clock)
        self._database = core.database
        self._hints = core.hints
        self._link = core.link
        self._lanes = lanes
        self._sessions = sessions
        self._repairs = core.repairs
        self._after = 0

    async def run_once(self) -> float | None:
        """Audit the next lanes, if it is this server's turn."""
        took_seconds = 0.0
        lanes = self._next_lanes()
        try:
            if lanes and self._link.up and await self._hints.is_auditor():
                took_seconds = await self._audit(lanes)
        except HintsUnavailable as error:
            self._link.lost(str(error))
        rest_seconds = max(TICK_SECONDS, REST * took_seconds)
        # In step, one server would be first every time, and lanes that only others serve would never be audited.
        return rest_seconds * random.uniform(*SPREAD)  # noqa: S311  spreads turns, no secret

    def _next_lanes(self) -> list[int]:
        served = self._lanes.served_by(self._sessions.profiles)
        following = [lane for lane in served if lane > self._after] or served
        chosen = following[:LANES_A_TICK]
        self._after = chosen[-1] if chosen else 0
        return chosen

    async def _audit(self, lanes: list[int]) -> float:
        """Compare these lanes, and return how many seconds Postgres took."""
        began = self.clock.monotonic()
        rows = await self._database.fetch("list_overdue", lane_ids=lanes, per_lane=HINTS_PER_LANE, older_ms=OLDER_MS)
        took_seconds = self.clock.monotonic() - began
        by_lane: dict[int, list[Row]] = defaultdict(list)
        for row in rows:
            by_lane[row["lane_id"]].append(row)
        for lane, overdue in by_lane.items():
            missing = await self._hints.audit(lane, packing.hints(overdue[:HINTS_PER_LANE]))
            if missing:
                self._repairs.count(Repair.HINT_MISSING, missing)
                log.warning("redis lacked hints of a lane", lane=lane, missing=missing)
        return took_seconds
