"""The commands of a worker's jobs: what its supervisor has, from the hand-over to the end that is forgotten.

A supervisor is handed in by `attach`, and again after `lost`; in between there are no commands.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from orqestra.failpoint import Point, reached
from orqestra.log import get_logger
from orqestra.model.errors import InvalidInput
from orqestra.model.job import JobType
from orqestra.model.report import AttemptRef
from orqestra.v1.worker_pb2 import Assignment
from orqestra.worker.logs import Offsets
from orqestra.worker.outcome import (
    DRAINING,
    NO_SLOT,
    NOT_FOUND,
    NOT_RUNNABLE,
    Finished,
    HandBack,
    failure,
    outcome,
)
from orqestra.worker.outgoing import attempt_of
from orqestra.worker.shell import Shell
from orqestra.worker.shortage import Shortage
from orqestra.worker.slots import Fate, Occupied, Slots
from orqestra.worker.supervised import Command, Exit, Gone, Live, Strays, Stuck, Supervisor

FROM_START: Final = (0, 0)
# How long something may wait here for a slot, while another worker may have one.
LATE_SECONDS: Final = 1.0

log = get_logger(__name__)


class Commands:
    """Hands commands over, and says what became of them. Everything returns at once."""

    def __init__(self, slots: Slots, shell: Shell, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.supervisor: Supervisor | None = None
        self.shortage = Shortage()
        self._monotonic = monotonic
        self._slots = slots
        self._shell = shell
        self._until_us = -1
        # The supervisor's keys of results that it keeps until they are acknowledged.
        self._kept: dict[AttemptRef, int] = {}
        # Those that it need not keep any more, until it is told so.
        self._forgotten: list[int] = []
        # What was handed over, and when: oldest first.
        self._handed_over: deque[tuple[float, int]] = deque()
        self._withdrawn = NO_SLOT

    @property
    def unfit(self) -> str:
        """Why no work can be taken; empty if it can."""
        if self.supervisor is None:
            return "the supervisor has ended, and no other could be started yet"
        return self.supervisor.health or self.shortage.health

    def attach(self, supervisor: Supervisor, owed: Iterable[AttemptRef]) -> None:
        """Take over what an earlier daemon left; of what is `owed` the results are known already."""
        self.supervisor = supervisor
        self._until_us = -1
        owed = frozenset(owed)
        for key, tag, ended in supervisor.held:
            assignment = Assignment.FromString(tag)
            attempt = attempt_of(assignment.attempt)
            if attempt in owed:
                self._kept[attempt] = key
            elif attempt not in self._slots:
                self._slots.adopt(key, attempt, assignment, ended=ended)

    def lost(self) -> list[AttemptRef]:
        """Give up all commands: they ended with the supervisor. What had ended is told by the next one."""
        self.supervisor = None
        given_up = []
        for key in list(self._slots.running):
            occupied = self._slots.vacate(key)
            given_up.append(occupied.attempt)
            if not occupied.ended:
                log.error("a command ended with its supervisor", job_id=occupied.attempt.job_id)
        return given_up

    def allow(self, until: float | None) -> None:
        """Have commands start until this time of CLOCK_BOOTTIME, in seconds; None: not at all."""
        until_us = 0 if until is None else int(until * 1e6)
        if self.supervisor is not None and until_us != self._until_us:
            self._until_us = until_us
            self.supervisor.bound(self._slots.count, until_us)

    def hand_over(self, followed: frozenset[AttemptRef] | set[AttemptRef]) -> list[tuple[Occupied, Finished]]:
        """Hand over what waits. Return those that can't be run by their own fault, with what is told of them."""
        if self.supervisor is None or not (occupied := self._slots.hand_over()):
            return []
        commands: list[Command] = []
        failed: list[tuple[Occupied, Finished]] = []
        for key, each in occupied:
            prepared = self._prepare(key, each.assignment)
            if isinstance(prepared, Command):
                commands.append(prepared)
            else:
                failed.append((self._slots.vacate(key), prepared))
        reached(Point.ACCEPTED)
        self.supervisor.start(commands)
        now = self._monotonic()
        self._handed_over.extend((now, command.key) for command in commands)
        for key, each in occupied:
            if each.attempt in followed:
                self.supervisor.follow(key, *FROM_START)
        return failed

    def cancel(self, attempts: Iterable[AttemptRef]) -> list[AttemptRef]:
        """End commands because the server wants it; return those that are not here."""
        keys, unknown = [], []
        for attempt in attempts:
            key = self._slots.key_of(attempt)
            if key is None:
                unknown.append(attempt)
                continue
            occupied = self._slots.running[key]
            occupied.cancelled = True
            # Handed back by the drain or not, a cancelled job must not run again.
            if occupied.fate is Fate.RETURN:
                occupied.fate = Fate.REPORT
            keys.append(key)
        if keys and self.supervisor is not None:
            self.supervisor.cancel(keys)
        return unknown

    def revoke(self, attempt: AttemptRef) -> None:
        """Kill a command, and tell nothing of it."""
        if (key := self._slots.key_of(attempt)) is not None:
            self._slots.running[key].fate = Fate.DROP
            if self.supervisor is not None:
                self.supervisor.kill([key])

    def withdraw(self) -> None:
        """Have none start any more: those that have not are handed back."""
        self._withdrawn = DRAINING
        if self._slots.running and self.supervisor is not None:
            self.supervisor.withdraw(list(self._slots.running))

    def withdraw_late(self) -> None:
        """Hand back what has waited a second for a slot: it was meant to follow short commands, and these are not.

        What has a slot and was not started yet, because so many start at once, has no reason to go elsewhere.
        """
        until = self._monotonic() - LATE_SECONDS
        late = []
        while self._handed_over and self._handed_over[0][0] <= until:
            late.append(self._handed_over.popleft()[1])
        if late and self.supervisor is not None and (waiting := self._slots.without_slot().intersection(late)):
            # One that gets its slot just now is not touched by it, and is not asked for again.
            self.supervisor.withdraw([key for key in late if key in waiting])

    def return_all(self) -> None:
        """End all, with TERM; what does not end by itself first is handed back."""
        for each in self._slots.running.values():
            if each.fate is Fate.REPORT:
                each.fate = Fate.RETURN
        if self.supervisor is not None:
            self.supervisor.cancel(list(self._slots.running))

    def kill_all(self) -> None:
        """End all now; after `return_all`."""
        if self.supervisor is not None:
            self.supervisor.kill(list(self._slots.running))

    def follow(self, attempt: AttemptRef, offsets: Offsets) -> None:
        """Have live output of a command told from these offsets on."""
        key = self._slots.key_of(attempt)
        if key is not None and self.supervisor is not None:
            self.supervisor.follow(key, *offsets)

    def unfollow(self, attempt: AttemptRef) -> None:
        """Have no more of it told."""
        key = self._slots.key_of(attempt)
        if key is not None and self.supervisor is not None:
            self.supervisor.unfollow(key)

    def ends(self, reports: Sequence[object]) -> Iterator[tuple[Occupied, Finished | HandBack]]:
        """Yield what is to be told of the commands that have ended, and note the rest of the reports."""
        for report in reports:
            match report:
                case Exit():
                    if (ended := self._ended(report)) is not None:
                        yield ended
                case Gone(key=key):
                    self._gone(key)
                case Stuck(keys=keys):
                    self._stuck(keys)
                case Strays(pids=pids):
                    log.warning("processes have left their command, it can't be told which", pids=pids)

    def live(self, reports: Sequence[object]) -> Iterator[tuple[AttemptRef, Live]]:
        """Yield the live output among the reports; before `ends`, which gives up the keys."""
        for report in reports:
            if isinstance(report, Live) and (occupied := self._slots.running.get(report.key)) is not None:
                yield occupied.attempt, report

    def forget(self, attempt: AttemptRef, *, keep_aside: bool) -> None:
        """Have the end of a command kept no longer, or kept where nobody reads it."""
        key = self._kept.pop(attempt, None)
        if key is None:
            return
        if keep_aside and self.supervisor is not None:
            self.supervisor.set_aside([key])
        else:
            self._forgotten.append(key)

    def flush(self) -> None:
        """Tell the supervisor what was forgotten; one that has ended knows of none."""
        if self._forgotten and self.supervisor is not None:
            self.supervisor.forget(self._forgotten)
        self._forgotten = []

    def _prepare(self, key: int, assignment: Assignment) -> Command | Finished:
        if assignment.type != JobType.SHELL:
            known = ", ".join(JobType)
            error = f"type: {assignment.type!r} is not known to this worker; allowed are {known}"
            return failure(assignment, NOT_FOUND, error)
        try:
            return self._shell.prepare(assignment, key)
        except InvalidInput as error:
            return failure(assignment, NOT_RUNNABLE, str(error))

    def _ended(self, exit_: Exit) -> tuple[Occupied, Finished | HandBack] | None:
        if exit_.key not in self._slots.running:
            # Told again by a supervisor that was started for one that had told it.
            return None
        occupied = self._slots.vacate(exit_.key)
        # Of a command that an earlier daemon made to end nobody knows why, unless the server wants it to end.
        returning = occupied.fate is Fate.RETURN or (occupied.adopted and not occupied.cancelled)
        ended = outcome(
            exit_,
            occupied.assignment,
            returning=returning,
            cancelled=occupied.cancelled,
            withdrawn=self._withdrawn,
        )
        if isinstance(ended, HandBack) and ended.shortage:
            log.warning("job handed back", job_id=occupied.attempt.job_id, reason=ended.reason)
            self.shortage.met(ended.reason)
        elif exit_.started_at_us:
            self.shortage.over()
        if isinstance(ended, Finished) and occupied.is_ours:
            self._kept[occupied.attempt] = exit_.key
        else:
            self._forgotten.append(exit_.key)
        return occupied, ended

    def _gone(self, key: int) -> None:
        """Give up a command whose end the disk has lost: the server asks what is held, and gets to know."""
        if key in self._slots.running:
            occupied = self._slots.vacate(key)
            log.error("the result of a command is lost: the disk does not have it", job_id=occupied.attempt.job_id)

    def _stuck(self, keys: Iterable[int]) -> None:
        for key in keys:
            if (attempt := self._slots.note_stuck(key)) is not None:
                log.error("the kernel does not end a command, its slot stays taken", job_id=attempt.job_id)
