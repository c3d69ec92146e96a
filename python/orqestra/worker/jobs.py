"""What the worker holds, from the assignment to the acknowledged result.

Everything here runs in the event loop's thread and waits for nothing. Commands run in the supervisor, a
process of its own, which tells their end through its descriptor once it is durable.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable
from typing import Final, assert_never

from orqestra._dispatch import Assigned
from orqestra.failpoint import Point, reached
from orqestra.log import get_logger
from orqestra.model.report import AttemptRef
from orqestra.v1.jobs_pb2 import STREAM_STDERR, STREAM_STDOUT
from orqestra.v1.worker_pb2 import Assignment, HeldAttempt, LiveOutput, OutputAck, ResultAcks
from orqestra.worker.commands import Commands
from orqestra.worker.lease import Lease, boot_seconds
from orqestra.worker.logs import Logs, Offsets
from orqestra.worker.outcome import DRAINING, Finished, HandBack, cancelled, nothing_done
from orqestra.worker.outgoing import Outgoing, attempt_of, message_of
from orqestra.worker.results import Unacknowledged
from orqestra.worker.shell import Shell
from orqestra.worker.slots import Occupied, Slots
from orqestra.worker.supervised import Live, Supervisor

STREAMS: Final = {1: STREAM_STDOUT, 2: STREAM_STDERR}

# Given the `noop` attempts of one batch as they start.
OnNoops = Callable[[Collection[AttemptRef]], None]

log = get_logger(__name__)


class Jobs:
    """The attempts that wait, run or have ended here. `lease` is None while there is no session.

    All that is accepted goes to the supervisor at once: `attach` hands one in, and again after `lost`. It
    starts nothing once the lease is not sure any more: another worker may have it by then.
    `quiet` is set while it has no command, `idle` while moreover nothing waits or is unacknowledged.
    `on_noops` sees each batch of `noop` attempts right before they end: whoever measures asks for it.
    """

    def __init__(self, slots: int, shell: Shell, on_noops: OnNoops | None = None) -> None:
        self.lease: Lease | None = None
        self.quiet = asyncio.Event()
        self.idle = asyncio.Event()
        self.results = Unacknowledged()
        self.outgoing = Outgoing(self.results)
        self.logs = Logs(self.outgoing)
        self._slots = Slots(slots)
        self._commands = Commands(self._slots, shell)
        self._on_noops = on_noops
        self._draining = False
        self._note_idle()

    @property
    def offered_slots(self) -> int:
        """How many jobs this worker runs at once; 0 while it drains or is not well."""
        return 0 if self._draining or self._commands.unfit else self._slots.count

    @property
    def health(self) -> str:
        """What this worker suffers from; empty if it is well."""
        return self._commands.unfit or self._slots.stuck

    def held(self) -> list[HeldAttempt]:
        """Return all that the worker has accepted and still answers for."""
        phases = HeldAttempt.Phase
        ours = [each for each in self._slots.running.values() if each.is_ours]
        return [
            *_held(self._slots.waiting(), phases.PHASE_QUEUED),
            *_held((each.attempt for each in ours if not each.ended), phases.PHASE_RUNNING),
            *_held((each.attempt for each in ours if each.ended), phases.PHASE_FINISHED),
            *_held(self.results, phases.PHASE_FINISHED),
        ]

    def attach(self, supervisor: Supervisor) -> None:
        """Have commands run by `supervisor`, and take over those that an earlier daemon left there."""
        self._commands.attach(supervisor, self.results)
        self.start_waiting()

    def lost(self) -> None:
        """Note that the supervisor has ended, and with it all that ran."""
        self.logs.followed.difference_update(self._commands.lost())
        self._told()

    def end_session(self) -> None:
        """Start nothing until there is a lease again, and forget what only the old stream asked for."""
        self.lease = None
        self._commands.allow(None)
        for attempt in self.logs.followed:
            self._commands.unfollow(attempt)
        self.logs.forget()
        self.outgoing.restart()

    @property
    def can_start(self) -> bool:
        """Whether what has nothing to do may be told to be done at once."""
        return not self._draining and self.lease is not None and self.lease.allows_start(boot_seconds())

    def accept(self, assigned: Assigned) -> None:
        """Take over jobs, those told apart only while `can_start`; while draining they are handed back."""
        if self._on_noops is not None and assigned.noop_count:
            self._on_noops([AttemptRef(*attempt) for attempt in assigned.noops])
        self.results.add_noops(assigned, time.time_ns() // 1000)
        arrived = {attempt_of(each.attempt): each for each in map(Assignment.FromString, assigned.others)}
        if self._draining:
            self.outgoing.hand_back(arrived, DRAINING)
            return
        for attempt, assignment in arrived.items():
            if attempt not in self._slots and attempt not in self.results:
                self._slots.wait(attempt, assignment)
        self.start_waiting()

    def start_waiting(self) -> None:
        """Hand over what waits, and say until when commands may start there."""
        self._commands.allow(None if self.lease is None else self.lease.sure_until)
        if self.can_start:
            now_us = time.time_ns() // 1000
            noops = self._slots.take_effortless()
            if self._on_noops is not None and noops:
                self._on_noops(noops.keys())
            for attempt, assignment in noops.items():
                self.results.add(attempt, nothing_done(assignment, now_us))
        for occupied, failed in self._commands.hand_over(self.logs.followed):
            self._tell(occupied, failed)
        self._told()

    def cancel(self, attempts: Iterable[AttemptRef]) -> None:
        """End commands because someone asked for it: TERM, the grace, KILL. What waits never starts."""
        for attempt in self._commands.cancel(attempts):
            if (assignment := self._slots.withdraw(attempt)) is not None:
                self.results.add(attempt, cancelled(assignment))
        self._told()

    def revoke(self, attempts: Iterable[AttemptRef]) -> None:
        """Kill and forget what is no longer the worker's."""
        for attempt in attempts:
            self._commands.revoke(attempt)
            self._slots.withdraw(attempt)
            self._forget(attempt)
            log.warning("attempt revoked", job_id=attempt.job_id, fence=attempt.fence)
        self._told()

    def follow(self, attempt: AttemptRef, offsets: Offsets, *, stop: bool) -> None:
        """Send live output of an attempt, or no longer. For one that waits it begins with its start."""
        if stop:
            self.logs.unfollow(attempt)
            self._commands.unfollow(attempt)
        elif attempt in self._slots:
            self.logs.follow(attempt)
            self._commands.follow(attempt, offsets)

    def output_stored(self, ack: OutputAck) -> None:
        """Take the answer to a piece of output; without its attempt, the rest is not sent either."""
        attempt = attempt_of(ack.attempt)
        if ack.stored:
            self.results.stored(attempt, ack.stream, ack.offset)
        elif self._forget(attempt, keep_aside=True):
            log.warning("output refused: the attempt is no longer ours", job_id=attempt.job_id)
        self._told()

    def acknowledged(self, message: bytes) -> bool:
        """Take the answers to results: each of them ends the worker's duty. False: it is another message."""
        answered = self.results.acknowledge(message)
        if answered is None:
            return False
        reached(Point.ACKNOWLEDGED)
        expected = (ResultAcks.VERDICT_ACCEPTED, ResultAcks.VERDICT_DUPLICATE)
        verdicts = {number: name for name, number in ResultAcks.Verdict.items()}
        for attempt, verdict, was_here in answered:
            self._commands.forget(attempt, keep_aside=verdict == ResultAcks.VERDICT_UNKNOWN)
            if was_here and verdict not in expected:
                name = verdicts.get(verdict, str(verdict))
                log.warning("result not taken", job_id=attempt.job_id, fence=attempt.fence, verdict=name)
        self._told()
        return True

    def read_reports(self) -> bool:
        """Take what the supervisor has to tell: call it when its descriptor is readable.

        Return False once it has ended.
        """
        supervisor = self._commands.supervisor
        if supervisor is None:
            return False
        reports = supervisor.reports()
        if self.logs.followed:
            for attempt, live in self._commands.live(reports):
                self._wrote(attempt, live)
        for occupied, ended in self._commands.ends(reports):
            self._tell(occupied, ended)
        self._told()
        return not supervisor.closed

    def look(self) -> bool:
        """Look at the time, each second. Return whether the slots or the health that are offered may have changed."""
        self._commands.withdraw_late()
        return self._commands.shortage.look()

    def drain(self) -> None:
        """Offer no slots from now on and hand back what has not been started."""
        self._draining = True
        self.outgoing.hand_back(self._slots.withdraw_all(), DRAINING)
        self._commands.withdraw()
        self._told()

    def return_running(self) -> None:
        """End what runs, with TERM; it is handed back if it does not end by itself first."""
        self._commands.return_all()

    def kill_running(self) -> None:
        """End what runs now; after `return_running`."""
        self._commands.kill_all()

    def end_supervisor(self) -> None:
        """Have the supervisor end with the last command, and tell what it knows, durable or not."""
        if self._commands.supervisor is not None:
            self._commands.supervisor.stop()

    def _tell(self, occupied: Occupied, ended: Finished | HandBack) -> None:
        """Tell the server what became of an attempt, if that is still its business."""
        self.logs.followed.discard(occupied.attempt)
        if not occupied.is_ours:
            return
        match ended:
            case Finished():
                self.results.add(occupied.attempt, ended)
            case HandBack():
                self.outgoing.hand_back([occupied.attempt], ended.reason)
            case _:
                assert_never(ended)

    def _wrote(self, attempt: AttemptRef, live: Live) -> None:
        if attempt in self.logs.followed:
            self.logs.live(
                LiveOutput(
                    job_id=attempt.job_id,
                    fence=attempt.fence,
                    stream=STREAMS[live.stream],
                    offset=live.offset,
                    data=live.data,
                    total=live.total,
                )
            )

    def _forget(self, attempt: AttemptRef, *, keep_aside: bool = False) -> bool:
        """Forget the result of an attempt, the supervisor too; return whether it was there."""
        self._commands.forget(attempt, keep_aside=keep_aside)
        return self.results.remove(attempt)

    def _told(self) -> None:
        """After any change: let supervisor and writer look, and whoever waits for the end of it all."""
        self._commands.flush()
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
