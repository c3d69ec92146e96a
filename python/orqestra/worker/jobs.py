"""What the worker holds, from the assignment to the acknowledged result.

Everything here runs in the event loop's thread and waits for nothing. Commands run in the supervisor, a
process of its own, which tells their end through its descriptor once it is durable.
"""

import asyncio
import time
from collections.abc import Iterable
from typing import Final, assert_never

from orqestra._dispatch import Command, Exit, Gone, Live, Strays, Stuck, Supervisor
from orqestra.failpoint import Point, reached
from orqestra.log import get_logger
from orqestra.model.errors import InvalidInput
from orqestra.model.job import JobType
from orqestra.model.report import AttemptRef
from orqestra.v1.jobs_pb2 import STREAM_STDERR, STREAM_STDOUT
from orqestra.v1.worker_pb2 import Assignment, HeldAttempt, LiveOutput, OutputAck, ResultAcks
from orqestra.worker.lease import Lease, boot_seconds
from orqestra.worker.outcome import (
    DRAINING,
    NOT_FOUND,
    NOT_RUNNABLE,
    Finished,
    HandBack,
    cancelled,
    failure,
    nothing_done,
    outcome,
)
from orqestra.worker.outgoing import Outgoing, attempt_of, message_of
from orqestra.worker.results import Unacknowledged
from orqestra.worker.shell import Shell
from orqestra.worker.shortage import Shortage
from orqestra.worker.slots import Fate, Occupied, Slots

STREAMS: Final = {1: STREAM_STDOUT, 2: STREAM_STDERR}

log = get_logger(__name__)


class Jobs:
    """The attempts that wait, run or have ended here. `lease` is None while there is no session.

    All that is accepted goes to the supervisor at once: `attach` hands one in, and again after `lost`. It
    starts nothing once the lease is not sure any more: another worker may have it by then.
    `quiet` is set while no command runs, `idle` while moreover nothing waits or is unacknowledged.
    """

    def __init__(self, slots: int, shell: Shell) -> None:
        self.lease: Lease | None = None
        self.quiet = asyncio.Event()
        self.idle = asyncio.Event()
        self.results = Unacknowledged()
        self.outgoing = Outgoing(self.results)
        self._supervisor: Supervisor | None = None
        self._until_us = -1
        self._shell = shell
        self._slots = Slots(slots)
        self._shortage = Shortage()
        # The supervisor's keys of results that it keeps until they are acknowledged.
        self._kept: dict[AttemptRef, int] = {}
        # Those that it need not keep any more, until it is told so.
        self._forgotten: list[int] = []
        self._followed: set[AttemptRef] = set()
        self._draining = False
        self._note_idle()

    @property
    def offered_slots(self) -> int:
        """How many jobs this worker runs at once; 0 while it drains or is not well."""
        return 0 if self._draining or self._unfit else self._slots.count

    @property
    def health(self) -> str:
        """What this worker suffers from; empty if it is well."""
        return self._unfit or self._slots.stuck

    @property
    def _unfit(self) -> str:
        """Why it takes no work; empty if it can."""
        if self._supervisor is None:
            return "the supervisor has ended, and no other could be started yet"
        return self._supervisor.health or self._shortage.health

    def held(self) -> list[HeldAttempt]:
        """Return all that the worker has accepted and still answers for."""
        phases = HeldAttempt.Phase
        running = self._slots.running.values()
        return [
            *_held(self._slots.waiting(), phases.PHASE_QUEUED),
            *_held((each.attempt for each in running if each.is_ours and not each.ended), phases.PHASE_RUNNING),
            *_held((each.attempt for each in running if each.is_ours and each.ended), phases.PHASE_FINISHED),
            *_held(self.results, phases.PHASE_FINISHED),
        ]

    def attach(self, supervisor: Supervisor) -> None:
        """Have commands run by `supervisor`, and take over those that an earlier daemon left there."""
        self._supervisor = supervisor
        self._until_us = -1
        for key, tag, ended in supervisor.held:
            assignment = Assignment.FromString(tag)
            attempt = attempt_of(assignment.attempt)
            if attempt in self.results:
                self._kept[attempt] = key
            elif attempt not in self._slots:
                self._slots.adopt(key, attempt, assignment, ended=ended)
        self.start_waiting()

    def lost(self) -> None:
        """Note that the supervisor has ended, and with it all that ran. What ended is told by the next one."""
        self._supervisor = None
        for key, occupied in list(self._slots.running.items()):
            if not occupied.ended:
                log.error("a command ended with its supervisor", job_id=occupied.attempt.job_id)
            self._slots.vacate(key)
            self._followed.discard(occupied.attempt)
        self._told()

    def end_session(self) -> None:
        """Start nothing until there is a lease again, and forget what only the old stream asked for."""
        self.lease = None
        self.start_waiting()
        for attempt in self._followed:
            self._unfollow(attempt)
        self._followed.clear()
        self.outgoing.restart()

    def accept(self, assignments: Iterable[Assignment]) -> None:
        """Take over jobs, those with a free slot at once. While draining they are handed back."""
        arrived = {attempt_of(each.attempt): each for each in assignments}
        if self._draining:
            self.outgoing.hand_back(arrived, DRAINING)
            return
        for attempt, assignment in arrived.items():
            if attempt not in self._slots and attempt not in self.results:
                self._slots.wait(attempt, assignment)
        self.start_waiting()

    def start_waiting(self) -> None:
        """Hand over what waits, and say until when commands may start there."""
        if self._supervisor is None:
            return
        self._bound(self._supervisor)
        if self.lease is not None and self.lease.allows_start(boot_seconds()):
            now_us = time.time_ns() // 1000
            for attempt, assignment in self._slots.take_effortless().items():
                self.results.add(attempt, nothing_done(assignment, now_us))
        if occupied := self._slots.hand_over():
            commands = [command for key, each in occupied if (command := self._prepare(key, each)) is not None]
            reached(Point.ACCEPTED)
            self._supervisor.start(commands)
            self._follow_started(occupied)
        self._told()

    def _bound(self, supervisor: Supervisor) -> None:
        """Tell the supervisor until when the lease is sure, if that has changed."""
        until_us = 0 if self.lease is None else int(self.lease.sure_until * 1e6)
        if until_us != self._until_us:
            self._until_us = until_us
            supervisor.bound(self._slots.count, until_us)

    def cancel(self, attempts: Iterable[AttemptRef]) -> None:
        """End commands because someone asked for it: TERM, the grace, KILL. What waits never starts."""
        for attempt in attempts:
            if (key := self._slots.key_of(attempt)) is not None:
                self._slots.running[key].cancelled = True
                # Handed back by the drain or not, a cancelled job must not run again.
                if self._slots.running[key].fate is Fate.RETURN:
                    self._slots.running[key].fate = Fate.REPORT
                if self._supervisor is not None:
                    self._supervisor.cancel([key])
            elif (assignment := self._slots.withdraw(attempt)) is not None:
                self.results.add(attempt, cancelled(assignment))
        self._told()

    def revoke(self, attempts: Iterable[AttemptRef]) -> None:
        """Kill and forget what is no longer the worker's."""
        for attempt in attempts:
            if (key := self._slots.key_of(attempt)) is not None:
                self._slots.running[key].fate = Fate.DROP
                if self._supervisor is not None:
                    self._supervisor.kill([key])
            self._slots.withdraw(attempt)
            self._forget(attempt)
            log.warning("attempt revoked", job_id=attempt.job_id, fence=attempt.fence)
        self._told()

    def follow(self, attempt: AttemptRef, *, stop: bool) -> None:
        """Send live output of an attempt, or no longer. For one that waits it begins with its start."""
        key = self._slots.key_of(attempt)
        if stop:
            self._followed.discard(attempt)
            self._unfollow(attempt)
        elif attempt in self._slots:
            self._followed.add(attempt)
            if key is not None and self._supervisor is not None:
                self._supervisor.follow(key, 0, 0)

    def output_stored(self, ack: OutputAck) -> None:
        """Take the answer to a piece of output; without its attempt, the rest is not sent either."""
        attempt = attempt_of(ack.attempt)
        if ack.stored:
            self.results.stored(attempt, ack.stream, ack.offset)
        elif self._forget(attempt, keep_aside=True):
            log.warning("output refused: the attempt is no longer ours", job_id=attempt.job_id)
        self._told()

    def acknowledged(self, acks: Iterable[ResultAcks.Ack]) -> None:
        """Take the answers to results: each of them ends the worker's duty."""
        reached(Point.ACKNOWLEDGED)
        expected = (ResultAcks.VERDICT_ACCEPTED, ResultAcks.VERDICT_DUPLICATE)
        for ack in acks:
            attempt = attempt_of(ack.attempt)
            unknown = ack.verdict == ResultAcks.VERDICT_UNKNOWN
            if self._forget(attempt, keep_aside=unknown) and ack.verdict not in expected:
                verdict = ResultAcks.Verdict.Name(ack.verdict)
                log.warning("result not taken", job_id=attempt.job_id, fence=attempt.fence, verdict=verdict)
        self._told()

    def read_reports(self) -> bool:
        """Take what the supervisor has to tell: call it when its descriptor is readable.

        Return False once it has ended.
        """
        supervisor = self._supervisor
        if supervisor is None:
            return False
        for report in supervisor.reports():
            match report:
                case Exit():
                    self._ended(report)
                case Live():
                    self._wrote(report)
                case Gone():
                    self._gone(report.key)
                case Stuck():
                    self._tell_stuck(report.keys)
                case Strays():
                    log.warning("processes belong to no command any more that can be told", pids=report.pids)
                case _:
                    assert_never(report)
        if supervisor.closed:
            return False
        self.start_waiting()
        self._told()
        return True

    def look(self) -> bool:
        """Look at the time. Return whether the slots or the health that are offered may have changed."""
        return self._shortage.look()

    def end_supervisor(self) -> None:
        """Have the supervisor end with the last command, and tell what it knows, durable or not."""
        if self._supervisor is not None:
            self._supervisor.stop()

    def drain(self) -> None:
        """Offer no slots from now on and hand back what has not been started."""
        self._draining = True
        self.outgoing.hand_back(self._slots.withdraw_all(), DRAINING)
        if self._supervisor is not None:
            self._supervisor.withdraw(list(self._slots.running))
        self._told()

    def return_running(self) -> None:
        """End what runs, with TERM; it is handed back if it does not end by itself first."""
        for each in self._slots.running.values():
            if each.fate is Fate.REPORT:
                each.fate = Fate.RETURN
        if self._supervisor is not None:
            self._supervisor.cancel(list(self._slots.running))

    def kill_running(self) -> None:
        """End what runs now; after `return_running`."""
        if self._supervisor is not None:
            self._supervisor.kill(list(self._slots.running))

    def _prepare(self, key: int, occupied: Occupied) -> Command | None:
        """Return the command to be started; None if there is none, and the slot is free again."""
        assignment = occupied.assignment
        if assignment.type != JobType.SHELL:
            known = ", ".join(JobType)
            error = f"type: {assignment.type!r} is not known to this worker; allowed are {known}"
            self._report(key, failure(assignment, NOT_FOUND, error))
            return None
        try:
            return self._shell.prepare(assignment, key)
        except InvalidInput as error:
            self._report(key, failure(assignment, NOT_RUNNABLE, str(error)))
            return None

    def _follow_started(self, started: Iterable[tuple[int, Occupied]]) -> None:
        if self._followed and self._supervisor is not None:
            for key, occupied in started:
                if occupied.attempt in self._followed:
                    self._supervisor.follow(key, 0, 0)

    def _unfollow(self, attempt: AttemptRef) -> None:
        key = self._slots.key_of(attempt)
        if key is not None and self._supervisor is not None:
            self._supervisor.unfollow(key)

    def _ended(self, exit_: Exit) -> None:
        occupied = self._slots.running.get(exit_.key)
        if occupied is None:
            # Told again by a supervisor that was started for one that had told it.
            return
        # Of a command that an earlier daemon made to end nobody knows why: a cancel is known to the server.
        returning = occupied.fate is Fate.RETURN or occupied.adopted
        ended = outcome(exit_, occupied.assignment, returning=returning, cancelled=occupied.cancelled)
        if isinstance(ended, Finished) and occupied.is_ours:
            self._kept[occupied.attempt] = exit_.key
        else:
            self._forgotten.append(exit_.key)
        self._report(exit_.key, ended)

    def _tell_stuck(self, keys: Iterable[int]) -> None:
        for key in keys:
            if (attempt := self._slots.note_stuck(key)) is not None:
                log.error("the kernel does not end a command, its slot stays taken", job_id=attempt.job_id)

    def _gone(self, key: int) -> None:
        """Give up a command whose end the disk has lost: the server asks what is held, and gets to know."""
        occupied = self._slots.running.get(key)
        if occupied is not None:
            log.error("the result of a command is lost: the disk does not have it", job_id=occupied.attempt.job_id)
            occupied.fate = Fate.DROP
            self._slots.vacate(key)

    def _report(self, key: int, ended: Finished | HandBack) -> None:
        occupied = self._slots.vacate(key)
        self._followed.discard(occupied.attempt)
        if not occupied.is_ours:
            return
        match ended:
            case Finished():
                self.results.add(occupied.attempt, ended)
                self._shortage.over()
            case HandBack():
                if ended.shortage:
                    log.warning("job handed back", job_id=occupied.attempt.job_id, reason=ended.reason)
                    self._shortage.met(ended.reason)
                self.outgoing.hand_back([occupied.attempt], ended.reason)
            case _:
                assert_never(ended)

    def _forget(self, attempt: AttemptRef, *, keep_aside: bool = False) -> bool:
        """Forget the result of an attempt, the supervisor too; return whether it was there."""
        key = self._kept.pop(attempt, None)
        if key is not None and keep_aside and self._supervisor is not None:
            self._supervisor.set_aside([key])
        elif key is not None:
            self._forgotten.append(key)
        return self.results.remove(attempt)

    def _wrote(self, live: Live) -> None:
        occupied = self._slots.running.get(live.key)
        if occupied is not None and occupied.attempt in self._followed:
            attempt = occupied.attempt
            self.outgoing.live(
                LiveOutput(
                    job_id=attempt.job_id,
                    fence=attempt.fence,
                    stream=STREAMS[live.stream],
                    offset=live.offset,
                    data=live.data,
                )
            )

    def _told(self) -> None:
        """After any change: let supervisor and writer look, and whoever waits for the end of it all."""
        if self._forgotten and self._supervisor is not None:
            self._supervisor.forget(self._forgotten)
        # One that has ended knows of none; what its successor finds of them is a duplicate.
        self._forgotten = []
        self.outgoing.wake()
        self._note_idle()

    def _note_idle(self) -> None:
        quiet = not self._slots.running
        waits = next(self._slots.waiting(), None) is not None
        _set(self.quiet, quiet)
        _set(self.idle, quiet and not waits and not len(self.results))


def _held(attempts: Iterable[AttemptRef], phase: HeldAttempt.Phase) -> list[HeldAttempt]:
    return [HeldAttempt(attempt=message_of(attempt), phase=phase) for attempt in attempts]


def _set(event: asyncio.Event, value: bool) -> None:
    if value:
        event.set()
    else:
        event.clear()
