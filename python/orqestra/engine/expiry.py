"""Expiry: closes sessions whose lease is over and brings back what ran on closed ones.

Two guarded steps, each second, on any server: close, then sweep. The row lock serialises closing with
the renewal, which then learns that it lost. The sweep has no grace.
"""

from collections.abc import Sequence
from typing import Final

from orqestra.engine.core import Core
from orqestra.engine.leases import Leases
from orqestra.engine.repairs import Repair
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

    retry_last_seconds = 1.0

    def __init__(self, core: Core, leases: Leases, settlement: Settlement, *, lease_seconds: float) -> None:
        super().__init__("expiry", core.clock)
        self._database = core.database
        self._leases = leases
        self._settlement = settlement
        self._lease_seconds = lease_seconds
        self._storm_until = 0.0
        self._repairs = core.repairs

    async def run_once(self) -> float | None:
        """Close what has lapsed, sweep what ran there."""
        if self._leases.steady_seconds() >= self._lease_seconds and not await self._is_storm():
            closed = await self._database.fetch("close_lapsed")
            self._repairs.count(Repair.LEASE_OVER, len(closed))
            if closed:
                log.warning("leases are over", sessions=[row["id"] for row in closed])
        while await self._sweep():
            pass
        return TICK_SECONDS

    async def _is_storm(self) -> bool:
        now = self.clock.monotonic()
        if self._storm_until > now:
            return True
        [row] = await self._database.insist("count_lapsed")
        lapsed, is_open = row["lapsed"], row["open"]
        if lapsed <= STORM_SESSIONS or lapsed <= STORM_SHARE * is_open:
            self._storm_until = 0.0
            return False
        if self._storm_until:
            # One more lease has been waited for and they are still silent: they are gone.
            self._storm_until = 0.0
            return False
        self._storm_until = now + self._lease_seconds
        self._repairs.count(Repair.LEASE_STORM)
        log.error("many leases are over at once, waiting one more", lapsed=lapsed, open=is_open)
        return True

    async def _sweep(self) -> bool:
        """Bring back a page; return whether to go on at once. What is in other hands is left to the next second."""
        rows = await self._database.insist("find_orphans", at_most=SWEEP_ROWS)
        if not rows:
            return False
        reached(Point.ORPHANS_FOUND)
        reports = [_report(row) for row in rows]
        lost = await self._bring_back([each for each in reports if each.ending is Ending.LOST], Repair.JOB_LOST)
        rest = [each for each in reports if each.ending is not Ending.LOST]
        settled = lost + await self._bring_back(rest, Repair.JOB_RETURNED)
        if settled:
            log.info("jobs brought back", jobs=settled)
        return settled > 0 and len(rows) == SWEEP_ROWS

    async def _bring_back(self, reports: Sequence[Report], repair: Repair) -> int:
        settled = await self._settlement.settle_orphans(reports)
        self._repairs.count(repair, settled)
        return settled


def _report(row: Row) -> Report:
    """A lost worker counts against the job, work that was never delivered does not."""
    lost = row["closed_reason"] in {"lapsed", "restarted"}
    return Report(
        attempt=AttemptRef(row["id"], row["fence"], row["token"]),
        session_id=row["session_id"],
        ending=Ending.LOST if lost else Ending.RETURNED,
        reason=Reason.WORKER_LOST if lost else Reason.NOT_DELIVERED,
    )
