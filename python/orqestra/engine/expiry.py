"""Expiry: closes sessions whose lease is over and brings back what ran on closed ones.

Two guarded steps, each second, on any server: close, then sweep. The row lock serialises closing with
the renewal, which then learns that it lost. The sweep has no grace.
"""

from typing import Final

from orqestra.engine.core import Core
from orqestra.engine.leases import Leases
from orqestra.engine.settlement import Settlement
from orqestra.failpoint import Point, reached
from orqestra.log import get_logger
from orqestra.model.decision import Ending
from orqestra.model.report import AttemptRef, Reason, Report
from orqestra.service import Service
from orqestra.store.database import Row

TICK_SECONDS: Final = 1.0
SWEEP_ROWS: Final = 500
# A storm: more than this many sessions and this share of all lapse at once. Then rather this machine's
# or Postgres' clock or network is at fault than all those workers.
STORM_SESSIONS: Final = 10
STORM_SHARE: Final = 0.3

log = get_logger(__name__)


class Expiry(Service):
    """Brings back the jobs of workers that are gone."""

    def __init__(self, core: Core, leases: Leases, settlement: Settlement, *, lease_seconds: float) -> None:
        super().__init__("expiry", core.clock)
        self._database = core.database
        self._leases = leases
        self._settlement = settlement
        self._lease_seconds = lease_seconds
        self._storm_until = 0.0

    async def run_once(self) -> float | None:
        """Close what has lapsed, sweep what ran there."""
        if self._leases.steady_seconds() >= self._lease_seconds and not await self._is_storm():
            closed = await self._database.fetch("close_lapsed")
            if closed:
                log.warning("leases are over", sessions=[row["id"] for row in closed])
        while await self._sweep() == SWEEP_ROWS:
            pass
        return TICK_SECONDS

    async def _is_storm(self) -> bool:
        now = self.clock.monotonic()
        if self._storm_until > now:
            return True
        row = await self._database.fetch_one("count_lapsed")
        assert row is not None
        lapsed, is_open = row["lapsed"], row["open"]
        if lapsed <= STORM_SESSIONS or lapsed <= STORM_SHARE * is_open:
            self._storm_until = 0.0
            return False
        if self._storm_until:
            # One more lease has been waited for and they are still silent: they are gone.
            self._storm_until = 0.0
            return False
        self._storm_until = now + self._lease_seconds
        log.error("many leases are over at once, waiting one more", lapsed=lapsed, open=is_open)
        return True

    async def _sweep(self) -> int:
        rows = await self._database.fetch("find_orphans", at_most=SWEEP_ROWS)
        if rows:
            reached(Point.ORPHANS_FOUND)
            await self._settlement.settle_orphans([_report(row) for row in rows])
            log.info("jobs brought back", jobs=len(rows))
        return len(rows)


def _report(row: Row) -> Report:
    """A lost worker counts against the job, work that was never delivered does not."""
    lost = row["closed_reason"] in {"lapsed", "restarted"}
    return Report(
        attempt=AttemptRef(row["id"], row["fence"], row["token"]),
        session_id=row["session_id"],
        ending=Ending.LOST if lost else Ending.RETURNED,
        reason=Reason.WORKER_LOST if lost else Reason.NOT_DELIVERED,
    )
