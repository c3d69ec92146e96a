"""What the worker holds, from the assignment to the acknowledged result.

Everything here runs in the event loop's thread and waits for nothing; commands run in the executor's
threads and tell their end through its descriptor, and the spool's thread tells through another what it
has made durable.
"""

import asyncio
import time
from collections.abc import Iterable
from typing import Final, assert_never

from orqestra._dispatch import Command, Executor, Exit, Live, Spool
from orqestra.failpoint import Point, reached
from orqestra.log import get_logger
from orqestra.model.errors import InvalidInput
from orqestra.model.job import JobType
from orqestra.model.report import AttemptRef
from orqestra.v1.jobs_pb2 import STREAM_STDERR, STREAM_STDOUT
from orqestra.v1.worker_pb2 import Assignment, HeldAttempt, LiveOutput, OutputAck, ResultAcks
from orqestra.worker.lease import Lease, boot_seconds
from orqestra.worker.logs import Logs, Offsets
from orqestra.worker.outcome import (
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
from orqestra.worker.shell import Prepared, Shell
from orqestra.worker.slots import Fate, Occupied, Slots
from orqestra.worker.spool import ResultSpool

STREAMS: Final = {1: STREAM_STDOUT, 2: STREAM_STDERR}

log = get_logger(__name__)


class Jobs:
    """The attempts that wait, run or have ended here. `lease` is None while there is no session.

    Without a lease that is sure, nothing that waits is started: another worker may have it by then.
    `quiet` is set while no command runs, `idle` while moreover nothing waits or is unacknowledged.
    """

    def __init__(self, slots: int, executor: Executor, shell: Shell, spool: Spool) -> None:
        self.lease: Lease | None = None
        self.quiet = asyncio.Event()
        self.idle = asyncio.Event()
        self.results = Unacknowledged()
        self.outgoing = Outgoing(self.results)
        self.logs = Logs(self.outgoing)
        self._spool = ResultSpool(spool, self.results)
        self._executor = executor
        self._shell = shell
        self._slots = Slots(slots)
        self._prepared: dict[int, Prepared] = {}
        self._draining = False
        self._note_idle()

    @property
    def offered_slots(self) -> int:
        """How many jobs this worker runs at once; 0 while it drains or is not well."""
        return 0 if self._draining or self.health else self._slots.count

    @property
    def health(self) -> str:
        """What this worker suffers from; empty if it is well."""
        return self._spool.health

    def held(self) -> list[HeldAttempt]:
        """Return all that the worker has accepted and still answers for."""
        phases = HeldAttempt.Phase
        running = self._slots.running.values()
        return [
            *_held(self._slots.waiting(), phases.PHASE_QUEUED),
            *_held((each.attempt for each in running if each.fate is not Fate.DROP), phases.PHASE_RUNNING),
            *_held(self.results, phases.PHASE_FINISHED),
        ]

    def end_session(self) -> None:
        """Start nothing until there is a lease again, and forget what only the old stream asked for."""
        self.lease = None
        for attempt in self.logs.followed:
            if (key := self._slots.key_of(attempt)) is not None:
                self._executor.unfollow(key)
        self.logs.forget()
        self.outgoing.restart()

    def accept(self, assignments: Iterable[Assignment]) -> None:
        """Take over jobs, those with a free slot at once. While draining they are handed back."""
        arrived = {attempt_of(each.attempt): each for each in assignments}
        if self._draining:
            self.outgoing.hand_back(arrived, "draining")
            return
        for attempt, assignment in arrived.items():
            if attempt not in self._slots and attempt not in self.results:
                self._slots.wait(attempt, assignment)
        self.start_waiting()

    def start_waiting(self) -> None:
        """Start what waits, as far as slots and the lease allow."""
        if self.lease is None or not self.lease.allows_start(boot_seconds()):
            return
        now_us = time.time_ns() // 1000
        for attempt, assignment in self._slots.take_effortless().items():
            self.results.add(attempt, nothing_done(assignment, now_us))
        while occupied := self._slots.occupy():
            commands = [command for key, each in occupied if (command := self._prepare(key, each)) is not None]
            reached(Point.ACCEPTED)
            self._executor.start(commands)
            self._follow_started(occupied)
        self._told()

    def cancel(self, attempts: Iterable[AttemptRef]) -> None:
        """End commands because someone asked for it: TERM, the grace, KILL. What waits never starts."""
        for attempt in attempts:
            if (key := self._slots.key_of(attempt)) is not None:
                # Handed back by the drain or not, a cancelled job must not run again.
                if self._slots.running[key].fate is Fate.RETURN:
                    self._slots.running[key].fate = Fate.REPORT
                self._executor.cancel([key])
            elif (assignment := self._slots.withdraw(attempt)) is not None:
                self.results.add(attempt, cancelled(assignment))
        self._told()

    def revoke(self, attempts: Iterable[AttemptRef]) -> None:
        """Kill and forget what is no longer the worker's."""
        for attempt in attempts:
            if (key := self._slots.key_of(attempt)) is not None:
                self._slots.running[key].fate = Fate.DROP
                self._executor.kill([key])
            self._slots.withdraw(attempt)
            self._spool.remove(attempt)
            log.warning("attempt revoked", job_id=attempt.job_id, fence=attempt.fence)
        self._told()

    def follow(self, attempt: AttemptRef, offsets: Offsets, *, stop: bool) -> None:
        """Send live output of an attempt, or no longer. For one that waits it begins with its start."""
        key = self._slots.key_of(attempt)
        if stop:
            self.logs.unfollow(attempt)
            if key is not None:
                self._executor.unfollow(key)
        elif attempt in self._slots:
            self.logs.follow(attempt)
            if key is not None:
                self._executor.follow(key, *offsets)

    def output_stored(self, ack: OutputAck) -> None:
        """Take the answer to a piece of output; without its attempt, the rest is not sent either."""
        attempt = attempt_of(ack.attempt)
        if ack.stored:
            self.results.stored(attempt, ack.stream, ack.offset)
        elif self._spool.remove(attempt, keep_aside=True):
            log.warning("output refused: the attempt is no longer ours", job_id=attempt.job_id)
        self._told()

    def acknowledged(self, acks: Iterable[ResultAcks.Ack]) -> None:
        """Take the answers to results: each of them ends the worker's duty."""
        reached(Point.ACKNOWLEDGED)
        expected = (ResultAcks.VERDICT_ACCEPTED, ResultAcks.VERDICT_DUPLICATE)
        for ack in acks:
            attempt = attempt_of(ack.attempt)
            unknown = ack.verdict == ResultAcks.VERDICT_UNKNOWN
            if self._spool.remove(attempt, keep_aside=unknown) and ack.verdict not in expected:
                verdict = ResultAcks.Verdict.Name(ack.verdict)
                log.warning("result not taken", job_id=attempt.job_id, fence=attempt.fence, verdict=verdict)
        self._told()

    def read_reports(self) -> None:
        """Take what the executor has to tell: call it when its descriptor is readable."""
        for report in self._executor.reports():
            match report:
                case Exit():
                    self._ended(report)
                case Live():
                    self._wrote(report)
                case _:
                    assert_never(report)
        self.start_waiting()
        self._told()

    def read_spool(self) -> bool:
        """Take what the spool has to tell: call it when its descriptor is readable, and every second.

        Return whether the slots and the health that are offered have changed.
        """
        changed = self._spool.read()
        self._told()
        return changed

    def release_results(self) -> None:
        """Have all results sent, durable or not; what is not yet reaches the disk all the same."""
        self._spool.release_all()
        self._told()

    def drain(self) -> None:
        """Offer no slots from now on and hand back what has not been started."""
        self._draining = True
        self.outgoing.hand_back(self._slots.withdraw_all(), "draining")
        self._told()

    def return_running(self) -> None:
        """End what runs, with TERM; it is handed back if it does not end by itself first."""
        for each in self._slots.running.values():
            if each.fate is Fate.REPORT:
                each.fate = Fate.RETURN
        self._executor.cancel(list(self._slots.running))

    def kill_running(self) -> None:
        """End what runs now; after `return_running`."""
        self._executor.kill(list(self._slots.running))

    def _prepare(self, key: int, occupied: Occupied) -> Command | None:
        """Return the command to be started; None if there is none, and the slot is free again."""
        assignment = occupied.assignment
        if assignment.type != JobType.SHELL:
            known = ", ".join(JobType)
            error = f"type: {assignment.type!r} is not known to this worker; allowed are {known}"
            self._report(key, failure(assignment, NOT_FOUND, error))
            return None
        try:
            prepared = self._shell.prepare(assignment, key)
        except InvalidInput as error:
            self._report(key, failure(assignment, NOT_RUNNABLE, str(error)))
            return None
        except OSError as error:
            self._report(key, HandBack(reason=f"spawn: {error}"))
            return None
        self._prepared[key] = prepared
        return prepared.command

    def _follow_started(self, started: Iterable[tuple[int, Occupied]]) -> None:
        if self.logs.followed:
            for key, occupied in started:
                if occupied.attempt in self.logs.followed and key in self._prepared:
                    self._executor.follow(key, 0, 0)

    def _ended(self, exit_: Exit) -> None:
        reached(Point.EXITED)
        self._prepared.pop(exit_.key).clean_up()
        occupied = self._slots.running[exit_.key]
        returning = occupied.fate is Fate.RETURN
        self._report(exit_.key, outcome(exit_, occupied.assignment, returning=returning))

    def _report(self, key: int, ended: Finished | HandBack) -> None:
        occupied = self._slots.vacate(key)
        self.logs.followed.discard(occupied.attempt)
        if occupied.fate is Fate.DROP:
            return
        match ended:
            case Finished() if ended.result.started_at_us:
                self._spool.add(occupied.attempt, ended)
            case Finished():
                # Nothing ran: to do it once more costs less than to have it on disk.
                self.results.add(occupied.attempt, ended)
            case HandBack():
                log.warning("job handed back", job_id=occupied.attempt.job_id, reason=ended.reason)
                self.outgoing.hand_back([occupied.attempt], ended.reason)
            case _:
                assert_never(ended)

    def _wrote(self, live: Live) -> None:
        occupied = self._slots.running.get(live.key)
        if occupied is not None and occupied.attempt in self.logs.followed:
            attempt = occupied.attempt
            self.logs.live(
                LiveOutput(
                    job_id=attempt.job_id,
                    fence=attempt.fence,
                    stream=STREAMS[live.stream],
                    offset=live.offset,
                    data=live.data,
                )
            )

    def _told(self) -> None:
        """After any change: let the disk and the writer look, and whoever waits for the end of it all."""
        self._spool.flush()
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
