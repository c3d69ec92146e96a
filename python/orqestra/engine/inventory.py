"""Inventory: once a minute each worker here is asked what it holds, and that is compared with Postgres.

What it should hold and does not goes back; of what it should not hold its next Hello rids it. Neither
happens as long as everything else is right: both are counted.
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from orqestra.engine.core import Core
from orqestra.engine.dispatcher import Dispatcher
from orqestra.engine.repairs import Repair
from orqestra.engine.sessions import Session, Sessions
from orqestra.engine.settlement import Settlement
from orqestra.log import get_logger
from orqestra.model.decision import Ending
from orqestra.model.report import AttemptRef, Reason, Report
from orqestra.service import Service

TICK_SECONDS: Final = 1.0
# Rare, because it lists everything; a minute bounds for how long a mistake of ours can hold a job.
QUESTION_SECONDS: Final = 60.0
LOGGED_JOBS: Final = 20
NONE: Final[frozenset[AttemptRef]] = frozenset()

log = get_logger(__name__)


@dataclass(kw_only=True)
class _Question:
    """One question to a session: what was believed when it was asked."""

    due: float
    """When the next one is asked."""
    number: int = 0
    open: bool = False
    running: frozenset[AttemptRef] = NONE
    """Running there in Postgres."""
    given: frozenset[AttemptRef] = NONE
    """Given to its stream before the question, and no end read before it."""
    strangers: frozenset[AttemptRef] = NONE
    """Running there but not given: on the way from a claim, or with an end that waits to be settled."""
    forgotten: frozenset[AttemptRef] = NONE
    """Strangers for a whole period: they are on no way any more."""


class Inventory(Service):
    """Asks the sessions of this server, each in its own second of the minute."""

    def __init__(self, core: Core, sessions: Sessions, dispatcher: Dispatcher, settlement: Settlement) -> None:
        super().__init__("inventory", core.clock)
        self._database = core.database
        self._repairs = core.repairs
        self._sessions = sessions
        self._dispatcher = dispatcher
        self._settlement = settlement
        self._questions: dict[int, _Question] = {}

    async def run_once(self) -> float | None:
        """Ask the sessions whose turn it is."""
        due = self._due()
        if due:
            running: dict[int, set[AttemptRef]] = defaultdict(set)
            for row in await self._database.fetch("list_running", session_ids=due):
                running[row["session_id"]].add(AttemptRef(row["id"], row["fence"], row["token"]))
            for session_id in due:
                self._ask(session_id, frozenset(running[session_id]))
        return TICK_SECONDS

    def answered(
        self, session: Session, number: int, held: Sequence[AttemptRef], finished: Sequence[AttemptRef]
    ) -> None:
        """Compare the answer to a question with what was believed; an answer to an older one says nothing."""
        question = self._questions.get(session.id)
        if question is None or question.number != number or not question.open:
            return
        question.open = False
        there = {*held, *finished}
        # A result or a nack that was sent before the answer was read before it, and ended its attempt here.
        gone = (question.given - there) & session.outstanding
        self._dispatcher.handed_back(session, gone)
        self._bring_back(session, (gone & question.running) | (question.forgotten - there))
        self._rid(session, set(held) - session.outstanding)

    def _due(self) -> list[int]:
        now = self.clock.monotonic()
        ids = self._sessions.ids
        self._questions = {
            session_id: self._questions.get(session_id) or _Question(due=now + _part_of_a_period())
            for session_id in ids
        }
        return [session_id for session_id in ids if self._questions[session_id].due <= now]

    def _ask(self, session_id: int, running: frozenset[AttemptRef]) -> None:
        session = self._sessions.get(session_id)
        if session is None:
            return
        last = self._questions[session_id]
        given = session.outstanding
        self._questions[session_id] = _Question(
            due=self.clock.monotonic() + QUESTION_SECONDS,
            number=last.number + 1,
            open=True,
            running=running,
            given=given,
            strangers=running - given,
            forgotten=(running - given) & last.strangers,
        )
        session.peer.list_held(last.number + 1)

    def _bring_back(self, session: Session, missing: Iterable[AttemptRef]) -> None:
        """Return what is still running there, after all results that came before: settlement keeps their order."""
        reports = [_not_held(session, attempt) for attempt in missing]
        if reports:
            jobs = sorted(report.attempt.job_id for report in reports)
            log.error("worker does not hold its jobs", session=session.id, jobs=jobs[:LOGGED_JOBS], count=len(jobs))
            self._repairs.count(Repair.NOT_HELD, len(reports))
            self._settlement.settle(reports)

    def _rid(self, session: Session, strange: Iterable[AttemptRef]) -> None:
        """End the stream of a worker that holds what is not its own: the answer to its Hello revokes that."""
        jobs = sorted(attempt.job_id for attempt in strange)
        if jobs:
            log.error("worker holds what is not its own", session=session.id, jobs=jobs[:LOGGED_JOBS], count=len(jobs))
            self._sessions.end(session.id, reason="it holds jobs that are not its own", repair=Repair.NOT_OURS)


def _part_of_a_period() -> float:
    # The sessions of a server that has just been started are opened all at once.
    return random.uniform(0, QUESTION_SECONDS)  # noqa: S311  spreading needs no cryptography


def _not_held(session: Session, attempt: AttemptRef) -> Report:
    return Report(attempt=attempt, session_id=session.id, ending=Ending.RETURNED, reason=Reason.NOT_DELIVERED)
