"""Settlement: writes the ends of attempts, then answers the workers, then tells Redis.

Successes of plain jobs take one statement per batch. Everything else (failures, retries, steps of
runs, cancelled, lost and returned jobs) takes the short transaction of `store/settling.py`.
"""

import itertools
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import asyncpg

from orqestra._dispatch import Results, Successes
from orqestra.engine.core import Core
from orqestra.engine.direct import DirectMatch
from orqestra.engine.lanes import Lanes
from orqestra.engine.relay import Relay
from orqestra.engine.repairs import Repair
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
        self, core: Core, lanes: Lanes, relay: Relay, direct: DirectMatch, changed: Callable[[Sequence[int]], None]
    ) -> None:
        super().__init__("settlement", core.clock)
        self._database = core.database
        self._server_id = core.server_id
        self._repairs = core.repairs
        self._lanes = lanes
        self._relay = relay
        self._sessions = direct.sessions
        self._direct = direct
        self._changed = changed
        self._waiting: deque[Results | Report] = deque()

    def settle(self, reports: Sequence[Report]) -> None:
        """Take ends of attempts; the streams they came on are answered once they are committed."""
        self._waiting.extend(reports)
        self.wake()

    def settle_results(self, results: Results) -> None:
        """Take the results of a message, which are answered once they are committed."""
        self._waiting.append(results)
        self.wake()

    async def settle_orphans(self, reports: Sequence[Report]) -> int:
        """Bring back jobs of closed sessions; rows in other hands are left to those. Returns how many it changed."""
        changed = 0
        for at in range(0, len(reports), SLOW_BATCH):
            changed += await self._settle_slowly(reports[at : at + SLOW_BATCH], wait_for_locks=False)
        return changed

    async def run_once(self) -> float | None:
        """Settle one batch of what waits; it waits on if that was not possible."""
        batch = self._next_batch()
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

    def _next_batch(self) -> list[Results | Report]:
        batch: list[Results | Report] = []
        count = 0
        while self._waiting and count < limits.BATCH_JOBS:
            first = self._waiting[0]
            count += len(first) if isinstance(first, Results) else 1
            if batch and count > limits.BATCH_JOBS:
                break
            batch.append(self._waiting.popleft())
        return batch

    async def _settle_until_stored(self, batch: list[Results | Report]) -> None:
        """Try until Postgres takes it: the guards make it harmless to run again what may have been committed."""
        for failures in itertools.count(1):
            try:
                await self._settle(batch)
            except (Unavailable, asyncpg.PostgresError) as error:
                if self.stopping:
                    raise
                log.warning("results wait for Postgres", batch=len(batch), reason=str(error))
                if isinstance(error, OutcomeUnknown):
                    self._repairs.count(Repair.SETTLE_UNKNOWN)
                    self._relay.look_for_own()
                await self.pause(retry_delay_seconds(failures, AWAY_WAIT_SECONDS))
            else:
                return

    async def _settle(self, batch: list[Results | Report]) -> None:
        successes = Successes([each for each in batch if isinstance(each, Results)])
        rest = await self._complete(successes) if len(successes) else []
        rest += [each for each in batch if isinstance(each, Report)]
        for at in range(0, len(rest), SLOW_BATCH):
            await self._settle_slowly(rest[at : at + SLOW_BATCH], wait_for_locks=True)

    async def _complete(self, successes: Successes) -> list[Report]:
        """Complete plain jobs; returns those that were not, which go the slow way."""
        columns = successes.columns()
        try:
            [row] = await retry_conflicts(
                lambda: self._database.fetch("settle_completed", running=State.RUNNING, exited=Reason.EXITED, **columns)
            )
            done: list[int] = row["ids"]
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
            log.warning("a result is refused by Postgres, looking for it", results=len(successes), error=str(error))
            done = []
        acks, missed = successes.settle(done)
        reached(Point.SETTLED)
        for session_id, part in acks:
            session = self._sessions.get(session_id)
            if session is not None:
                session.peer.answer(part)
        self._changed(done)
        return [_report(*success) for success in missed]

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
        matching = self._direct.matching()
        async with self._direct.storing(matching, self._database.transaction()) as statements:
            settling = Settling(
                statements, server_id=self._server_id, find_lane=self._lanes.find_existing, submit=matching.submit
            )
            return await settling.settle(reports, wait_for_locks=wait_for_locks)

    def _answer(self, reports: Sequence[Report], verdicts: Sequence[Verdict | None]) -> None:
        reached(Point.SETTLED)
        by_session: dict[int, list[tuple[AttemptRef, Verdict]]] = defaultdict(list)
        for report, verdict in zip(reports, verdicts, strict=True):
            if verdict is not None:
                by_session[report.session_id].append((report.attempt, verdict))
        for session_id, answers in by_session.items():
            session = self._sessions.get(session_id)
            if session is not None:
                session.peer.answer_each(answers)


def _report(
    session_id: int, attempt: tuple[int, int, int], stdout: bytes, stderr: bytes, usage: Sequence[int]
) -> Report:
    """Return a plain success for the slow way."""
    wall_us, user_us, system_us, max_rss_kb = usage
    return Report(
        attempt=AttemptRef(*attempt),
        session_id=session_id,
        ending=Ending.SUCCEEDED,
        reason=Reason.EXITED,
        exit_code=0,
        stdout=stdout,
        stderr=stderr,
        stdout_bytes=len(stdout),
        stderr_bytes=len(stderr),
        wall_us=wall_us,
        user_us=user_us,
        system_us=system_us,
        max_rss_kb=max_rss_kb,
    )


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
