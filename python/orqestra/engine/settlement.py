"""Settlement: writes the ends of attempts, then answers the workers, then tells Redis.

Successes of plain jobs take one statement per batch. Everything else (failures, retries, steps of
runs, cancelled, lost and returned jobs) takes the short transaction of `store/settling.py`.
"""

import itertools
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import asyncpg

from orqestra.engine.core import Core
from orqestra.engine.lanes import Lanes
from orqestra.engine.relay import Relay
from orqestra.engine.repairs import Repair
from orqestra.engine.sessions import Sessions
from orqestra.failpoint import Point, reached
from orqestra.log import get_logger
from orqestra.model import limits
from orqestra.model.decision import Ending
from orqestra.model.errors import OrqestraError, OutcomeUnknown, Unavailable
from orqestra.model.lifecycle import State
from orqestra.model.report import AttemptRef, Reason, Report, Verdict
from orqestra.service import Service, retry_delay_seconds
from orqestra.store.database import retry_conflicts
from orqestra.store.settling import Settled, Settling

SLOW_BATCH: Final = 200
AWAY_WAIT_SECONDS: Final = 0.25

log = get_logger(__name__)


class Settlement(Service):
    """The one writer of results on this server."""

    def __init__(
        self, core: Core, lanes: Lanes, relay: Relay, sessions: Sessions, changed: Callable[[Sequence[int]], None]
    ) -> None:
        super().__init__("settlement", core.clock)
        self._database = core.database
        self._server_id = core.server_id
        self._repairs = core.repairs
        self._lanes = lanes
        self._relay = relay
        self._sessions = sessions
        self._changed = changed
        self._waiting: deque[Report] = deque()

    def settle(self, reports: Sequence[Report]) -> None:
        """Take the results of a stream; they are answered once they are committed."""
        self._waiting.extend(reports)
        self.wake()

    async def settle_orphans(self, reports: Sequence[Report]) -> int:
        """Bring back jobs of closed sessions; rows in other hands are left to those. Returns how many it changed."""
        changed = 0
        for at in range(0, len(reports), SLOW_BATCH):
            changed += await self._settle_slowly(reports[at : at + SLOW_BATCH], wait_for_locks=False)
        return changed

    async def run_once(self) -> float | None:
        """Settle one batch of what waits; it waits on if that was not possible."""
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), limits.BATCH_JOBS))]
        if batch:
            try:
                await self._settle_until_stored(batch)
            except BaseException:
                self._waiting.extendleft(reversed(batch))
                raise
        return 0 if self._waiting else None

    async def finish(self) -> None:
        """Settle what has come in before the stop."""
        while self._waiting:
            await self.run_once()

    async def _settle_until_stored(self, batch: list[Report]) -> None:
        """Try until Postgres takes it: the guards make it harmless to run again what may have been committed."""
        for failures in itertools.count(1):
            try:
                await self._settle(batch)
            except (Unavailable, asyncpg.PostgresError) as error:
                if self.stopping:
                    raise
                log.warning("results wait for Postgres", results=len(batch), reason=str(error))
                if isinstance(error, OutcomeUnknown):
                    self._repairs.count(Repair.SETTLE_UNKNOWN)
                    self._relay.look_for_own()
                await self.pause(retry_delay_seconds(failures, AWAY_WAIT_SECONDS))
            else:
                return

    async def _settle(self, batch: list[Report]) -> None:
        # The first report of an attempt counts; a second one in the same batch is judged the slow way.
        plain = {report.attempt: report for report in reversed(batch) if _is_plain(report)}
        done = await self._complete(list(plain.values())) if plain else set()
        rest = [report for report in batch if report.attempt not in done or report is not plain[report.attempt]]
        for at in range(0, len(rest), SLOW_BATCH):
            await self._settle_slowly(rest[at : at + SLOW_BATCH], wait_for_locks=True)

    async def _complete(self, reports: list[Report]) -> set[AttemptRef]:
        """Complete plain jobs; returns those that were, the others go the slow way."""
        try:
            columns = _completed_columns(reports)
            rows = await retry_conflicts(
                lambda: self._database.fetch("settle_completed", running=State.RUNNING, **columns)
            )
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
            return await self._bisect(reports, error)
        done = {AttemptRef(row["id"], row["fence"], row["token"]) for row in rows}
        accepted = [report for report in reports if report.attempt in done]
        self._answer(accepted, [Verdict.ACCEPTED] * len(accepted))
        self._changed([report.attempt.job_id for report in accepted])
        return done

    async def _bisect(self, reports: list[Report], error: asyncpg.PostgresError) -> set[AttemptRef]:
        if len(reports) == 1:
            return set()
        log.warning("a result is refused by Postgres, looking for it", results=len(reports), error=str(error))
        middle = len(reports) // 2
        return await self._complete(reports[:middle]) | await self._complete(reports[middle:])

    async def _settle_slowly(self, reports: Sequence[Report], *, wait_for_locks: bool) -> int:
        try:
            settled = await retry_conflicts(lambda: self._transact(reports, wait_for_locks=wait_for_locks))
        except Unavailable:
            raise
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, OrqestraError) as error:
            return await self._isolate(reports, error, wait_for_locks=wait_for_locks)
        for outbox_id, entries in settled.hints:
            self._relay.hand_over(outbox_id, entries)
        # Of a sweep nobody is told: the session is closed, and its worker asks with its next Hello.
        if wait_for_locks:
            self._answer(reports, settled.verdicts)
        self._changed(settled.changed)
        return len(settled.changed)

    async def _isolate(self, reports: Sequence[Report], error: Exception, *, wait_for_locks: bool) -> int:
        """Find the one report that cannot be settled, so that it stands in nobody's way."""
        if len(reports) > 1:
            middle = len(reports) // 2
            changed = await self._settle_slowly(reports[:middle], wait_for_locks=wait_for_locks)
            return changed + await self._settle_slowly(reports[middle:], wait_for_locks=wait_for_locks)
        if isinstance(error, asyncpg.PostgresError) and reports[0].reason is not Reason.RESULT_REJECTED:
            self._repairs.count(Repair.RESULT_REJECTED)
            log.error("result rejected", job=reports[0].attempt.job_id, error=str(error))
            return await self._settle_slowly([_rejected(reports[0], error)], wait_for_locks=wait_for_locks)
        # Not the report is at fault but what stands behind it, as a run of a newer version. Another
        # server may be able to settle it: its worker sends it again there.
        log.error("report cannot be settled here", job=reports[0].attempt.job_id, error=str(error))
        self._sessions.end(reports[0].session_id, reason=f"a result cannot be settled here: {error}")
        return 0

    async def _transact(self, reports: Sequence[Report], *, wait_for_locks: bool) -> Settled:
        async with self._database.transaction() as statements:
            settling = Settling(statements, server_id=self._server_id, find_lane=self._lanes.find_existing)
            return await settling.settle(reports, wait_for_locks=wait_for_locks)

    def _answer(self, reports: Sequence[Report], verdicts: Sequence[Verdict | None]) -> None:
        reached(Point.SETTLED)
        by_session: dict[int, list[Any]] = defaultdict(list)
        for report, verdict in zip(reports, verdicts, strict=True):
            if verdict is not None:
                by_session[report.session_id].append((report.attempt, verdict))
        for session_id, answers in by_session.items():
            session = self._sessions.get(session_id)
            if session is not None:
                session.peer.answer(answers)


def _is_plain(report: Report) -> bool:
    """Return whether the statement for whole batches can write it, which knows no counts of processes."""
    return report.ending is Ending.SUCCEEDED and not (report.killed_processes or report.left_processes)


def _rejected(report: Report, error: Exception) -> Report:
    """Return the failure of a job whose result Postgres refuses."""
    return replace(
        report,
        ending=Ending.FAILED,
        reason=Reason.RESULT_REJECTED,
        error=f"Postgres refuses the result: {error}",
        stdout=b"",
        stderr=b"",
        exit_code=None,
        exit_signal=None,
        stdout_bytes=0,
        stderr_bytes=0,
    )


def _completed_columns(reports: Sequence[Report]) -> dict[str, list[Any]]:
    return {
        "ids": [report.attempt.job_id for report in reports],
        "session_ids": [report.session_id for report in reports],
        "fences": [report.attempt.fence for report in reports],
        "tokens": [report.attempt.token for report in reports],
        "exit_codes": [report.exit_code for report in reports],
        "reasons": [report.reason for report in reports],
        "stdouts": [report.stdout for report in reports],
        "stderrs": [report.stderr for report in reports],
        "stdout_bytes": [report.stdout_bytes for report in reports],
        "stderr_bytes": [report.stderr_bytes for report in reports],
        "truncated": [report.truncated for report in reports],
        "wall_us": [report.wall_us for report in reports],
        "user_us": [report.user_us for report in reports],
        "system_us": [report.system_us for report in reports],
        "max_rss_kb": [report.max_rss_kb for report in reports],
    }
