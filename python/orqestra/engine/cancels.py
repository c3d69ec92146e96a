"""Cancel and retry by an operator. The row lock decides every race; a push to the worker is only a hint."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from orqestra._dispatch import outbox
from orqestra.engine import packing
from orqestra.engine.core import Core
from orqestra.engine.relay import Relay
from orqestra.engine.repairs import Repair
from orqestra.engine.sessions import Sessions
from orqestra.failpoint import Point, reached
from orqestra.log import get_logger
from orqestra.model.errors import HintsUnavailable, NotFound, Refused
from orqestra.model.lifecycle import TERMINAL, WAITING, Event, RunState, State, sources
from orqestra.model.report import AttemptRef
from orqestra.service import Service
from orqestra.store.database import Row, Statements, until_known

TICK_SECONDS: Final = 1.0
# A push takes milliseconds; what was asked for so long ago was told by the look each second.
LATE_MS: Final = 500
WAITING_STATES: Final = sorted(WAITING)
RETRYABLE: Final = list(sources(Event.RETRIED))

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Cancelled:
    """What a cancel found and left: `state` after it; `was` before, None if there is no such job."""

    id: int
    was: State | None
    state: State | None


@dataclass(kw_only=True)
class _Tried:
    """What a job was like before a try to retry it that was about to commit."""

    found: Row | None = None


class Cancels(Service):
    """Cancels and retries jobs; each second reads what must still be told to the workers here."""

    def __init__(self, core: Core, relay: Relay, sessions: Sessions, changed: Callable[[Sequence[int]], None]) -> None:
        super().__init__("cancels", core.clock)
        self._database = core.database
        self._callers = core.callers
        self._hints = core.hints
        self._link = core.link
        self._server_id = core.server_id
        self._repairs = core.repairs
        self._relay = relay
        self._sessions = sessions
        self._changed = changed

    async def cancel(self, ids: Sequence[int]) -> list[Cancelled]:
        """Cancel jobs, and with a step its run; answers in the order asked. Doing it twice is harmless."""
        rows = await self._until_known(ids)
        await self._spread(rows)
        found = {row["id"]: row for row in rows}
        return [_cancelled(job_id, found.get(job_id)) for job_id in ids]

    async def cancel_run(self, run_id: int) -> bool:
        """Cancel a run and its live step. False: the run had ended. Raises NotFound if there is none."""
        if await self._callers.fetch_one("get_run", id=run_id) is None:
            raise NotFound("run", run_id)
        rows = await self._until_known((), run_ids=(run_id,))
        await self._spread(rows)
        run = await self._callers.fetch_one("get_run", id=run_id)
        return run is not None and run["cancel_requested_at"] is not None

    async def retry(self, job_id: int) -> None:
        """Put a failed or cancelled job back to pending, with a new budget; a failed run goes on with it.

        Raises:
            NotFound: there is no such job.
            Refused: it is in another state, or its run is cancelled.
        """
        tried = _Tried()
        hints = await until_known(lambda: self._retry(job_id, tried), self._note_unknown)
        if hints is None:
            self._relay.look_for_own()
        else:
            self._relay.hand_over(*hints)
        self._changed([job_id])

    async def run_once(self) -> float | None:
        """Tell the workers here what is to be cancelled and was not told yet."""
        ids = self._sessions.ids
        if not ids:
            return TICK_SECONDS
        by_session: dict[tuple[int, bool], list[AttemptRef]] = defaultdict(list)
        for row in await self._database.insist("list_cancels", session_ids=ids, late_ms=LATE_MS):
            by_session[row["session_id"], row["late"]].append(AttemptRef(row["id"], row["fence"], row["token"]))
        for (session_id, late), attempts in by_session.items():
            told = self._tell(session_id, attempts)
            self._repairs.count(Repair.CANCEL_TOLD_LATE, told if late else 0)
        return TICK_SECONDS

    def _note_unknown(self) -> None:
        self._repairs.count(Repair.CANCEL_UNKNOWN)

    async def _until_known(self, ids: Sequence[int], *, run_ids: Sequence[int] = ()) -> list[Row]:
        """Cancel, and answer with what the try found that did it, though its COMMIT had no answer."""
        tried: dict[int, Row] = {}
        return await until_known(lambda: self._transact(ids, run_ids, tried), self._note_unknown)

    async def _transact(self, ids: Iterable[int], run_ids: Sequence[int], tried: dict[int, Row]) -> list[Row]:
        async with self._callers.transaction() as statements:
            # A step that an earlier try has cancelled is no longer the live one of its run.
            wanted = {*ids, *tried}
            found = await statements.fetch("find_runs", ids=sorted(wanted))
            runs = sorted({*run_ids, *(row["run_id"] for row in found)})
            if runs:
                await statements.fetch("lock_runs", ids=runs)
            if run_ids:
                await statements.fetch("request_run_cancels", ids=run_ids)
                steps = await statements.fetch("list_steps", run_ids=run_ids)
                wanted.update(row["id"] for row in steps if row["state"] not in TERMINAL)
            rows = await statements.fetch("cancel_jobs", ids=sorted(wanted), waiting=WAITING_STATES)
            ended = {row["run_id"] for row in rows if row["run_id"] is not None and row["state"] == State.CANCELLED}
            if ended:
                columns = {"states": [RunState.CANCELLED] * len(ended), "errors": [None] * len(ended)}
                await statements.fetch("close_runs", ids=list(ended), **columns)
            tried |= {row["id"]: _first_found(row, tried.get(row["id"])) for row in rows}
            return [tried[row["id"]] for row in rows]

    async def _spread(self, rows: Sequence[Row]) -> None:
        """Tell workers, other servers, Redis and whoever watches; all of it may be lost."""
        reached(Point.CANCELLED)
        ended = [row for row in rows if row["was"] in WAITING and row["state"] == State.CANCELLED]
        running = [row for row in rows if row["state"] == State.RUNNING]
        self._changed([row["id"] for row in ended])
        elsewhere = []
        for row in running:
            if self._sessions.get(row["session_id"]) is None:
                elsewhere.append(row["id"])
            else:
                self._tell(row["session_id"], [AttemptRef(row["id"], row["fence"], row["token"])])
        if not self._link.up:
            return
        try:
            if elsewhere:
                await self._hints.publish_cancel(elsewhere)
            if ended:
                await self._hints.forget(packing.hints(ended))
        except HintsUnavailable as error:
            self._link.lost(str(error))

    def _tell(self, session_id: int, attempts: Iterable[AttemptRef]) -> int:
        """Tell a worker of this server what it was not told yet; return how many that were."""
        session = self._sessions.get(session_id)
        if session is None:
            return 0
        # Told once on a stream; a stream that broke tells again with its successor.
        untold = [attempt for attempt in attempts if attempt not in session.cancels]
        if untold:
            session.cancels.update(untold)
            session.peer.cancel(untold)
        return len(untold)

    async def _retry(self, job_id: int, tried: "_Tried") -> tuple[int, bytes] | None:
        """Retry a job once; None: an earlier try, whose COMMIT had no answer, has done it."""
        async with self._callers.transaction() as statements:
            run = await _lock_run(statements, job_id)
            found = await statements.fetch_one("lock_jobs", ids=[job_id])
            if tried.found is not None and not _is_as_before(tried.found, found):
                return None
            if run is not None and run["state"] == RunState.CANCELLED:
                raise Refused(f"job {job_id} is a step of run {run['id']}, which is cancelled; trigger it again")
            row = await statements.fetch_one("retry_job", id=job_id, retryable=RETRYABLE)
            if row is None:
                await _explain(statements, job_id)
            assert row is not None
            if run is not None:
                await statements.fetch("reopen_run", id=run["id"])
            entries = outbox.encode([job_id], [row["lane_id"]], [row["priority"]], [0])
            kept = await statements.fetch_one("add_outbox", server_id=self._server_id, entries=entries)
            assert kept is not None
            tried.found = found
            return kept["id"], entries


def _first_found(row: Row, before: Row | None) -> Row:
    """What the earlier try found, if it is the one that cancelled the job; its mark of time shows that."""
    if before is None or row["was"] not in TERMINAL or row["cancel_requested_at"] != before["cancel_requested_at"]:
        return row
    return before


def _is_as_before(before: Row, now: Row | None) -> bool:
    """Whether nobody has touched an ended job; one that was retried and has ended again did so later."""
    return now is not None and all(before[name] == now[name] for name in ("state", "fence", "finished_at"))


async def _lock_run(statements: Statements, job_id: int) -> Row | None:
    found = await statements.fetch_one("find_runs", ids=[job_id])
    return None if found is None else await statements.fetch_one("lock_runs", ids=[found["run_id"]])


async def _explain(statements: Statements, job_id: int) -> None:
    """Raise what stands in the way of a retry."""
    row = await statements.fetch_one("get_job", id=job_id)
    if row is None:
        raise NotFound("job", job_id)
    allowed = " or ".join(RETRYABLE)
    raise Refused(f"job {job_id} is {row['state']}; only a job that is {allowed} can be retried")


def _cancelled(job_id: int, row: Row | None) -> Cancelled:
    if row is None:
        return Cancelled(id=job_id, was=None, state=None)
    return Cancelled(id=job_id, was=State(row["was"]), state=State(row["state"]))
