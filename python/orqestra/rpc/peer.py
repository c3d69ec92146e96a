"""The peer of one worker: what the engine says to it, waiting to be written.

Everything is queued here, encoded, and returns at once; what waits is merged into as few messages as
possible. Beats have a place of their own, so that they never wait behind data.
"""

import asyncio
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast

from orqestra._dispatch import wire
from orqestra.clock import Clock
from orqestra.engine.sessions import Opened
from orqestra.model.errors import InvalidInput
from orqestra.model.report import AttemptRef, Verdict
from orqestra.rpc.lane import Lane
from orqestra.v1 import jobs_pb2, worker_pb2

PROTOCOL: Final = 1
ACK_SECONDS: Final = 2.0
# A slow link may take long for a large Assign; a worker that reads nothing for so long is stopped or gone.
WRITE_SECONDS: Final = 10.0
GOODBYE_SECONDS: Final = 1.0
LOGS_KEY_BYTES: Final = 16

VERDICTS: Final = {
    Verdict.ACCEPTED: worker_pb2.ResultAcks.VERDICT_ACCEPTED,
    Verdict.DUPLICATE: worker_pb2.ResultAcks.VERDICT_DUPLICATE,
    Verdict.STALE: worker_pb2.ResultAcks.VERDICT_STALE,
    Verdict.UNKNOWN: worker_pb2.ResultAcks.VERDICT_UNKNOWN,
}


@dataclass(frozen=True, slots=True)
class Outbound:
    """A ServerMessage, encoded. `number` is that of an Assign, which the worker has to acknowledge."""

    message: bytes
    number: int = 0


class StreamPeer:
    """What the engine says to one worker, waiting to be written."""

    # A server has thousands of them: no dictionary, and lists, since an empty deque takes 600 bytes.
    __slots__ = (
        *("ended", "_clock", "_first", "_beat", "_messages", "_answers", "_some", "_number", "_acknowledged"),
        *("_sent_at", "_writing_since", "_ended_at", "_logs_key", "_lane"),
    )

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._first: worker_pb2.ServerMessage | None = None
        self._beat: worker_pb2.ServerMessage | None = None
        self._messages: list[Outbound] = []
        self._answers: list[bytes] = []
        self._some = asyncio.Event()
        self._number = 0
        self._acknowledged = 0
        self._sent_at: list[tuple[int, float]] = []
        self._writing_since: float | None = None
        self._ended_at = 0.0
        self.ended: str | None = None
        self._logs_key = secrets.token_bytes(LOGS_KEY_BYTES)
        self._lane: Lane | None = None

    def assign(self, jobs: bytes) -> None:
        """Queue one Assign message."""
        self._number += 1
        self._messages.append(Outbound(wire.assign(self._number, jobs), self._number))
        self._some.set()

    def answer(self, acks: bytes) -> None:
        """Queue answers to results; all that wait go in one message."""
        self._answers.append(acks)
        self._some.set()

    def answer_each(self, verdicts: Sequence[tuple[AttemptRef, Verdict]]) -> None:
        """Queue verdicts."""
        self.answer(worker_pb2.ResultAcks(acks=[_ack(*verdict) for verdict in verdicts]).SerializeToString())

    def stored(self, attempt: AttemptRef, stream: int, offset: int, *, kept: bool) -> None:
        """Queue the answer to a piece of output."""
        ack = worker_pb2.OutputAck(
            attempt=_ref(attempt), stream=cast("jobs_pb2.Stream", stream), offset=offset, stored=kept
        )
        self._queue(worker_pb2.ServerMessage(output_ack=ack))

    def cancel(self, attempts: Sequence[AttemptRef]) -> None:
        """Queue a cancel."""
        cancel = worker_pb2.Cancel(attempts=map(_ref, attempts))
        self._queue(worker_pb2.ServerMessage(cancel=cancel))

    def list_held(self, seq: int) -> None:
        """Queue the question what the worker holds, behind all that was assigned before it."""
        self._queue(worker_pb2.ServerMessage(list_held=worker_pb2.ListHeld(seq=seq)))

    def follow(self, attempt: AttemptRef, offsets: tuple[int, int], *, stop: bool) -> None:
        """Queue the wish for live output on its own lane; here, if there is none yet: the worker then opens it."""
        stdout, stderr = offsets
        follow = worker_pb2.Follow(attempt=_ref(attempt), stop=stop, stdout_offset=stdout, stderr_offset=stderr)
        if self._lane is None:
            self._queue(worker_pb2.ServerMessage(follow=follow))
        else:
            self._lane.follow(follow)

    def opens(self, key: bytes) -> bool:
        """Return whether this key, sent with Welcome, opens the lane of live output."""
        return hmac.compare_digest(self._logs_key, key)

    def open_lane(self, lane: Lane) -> None:
        """Say from now on there what is to be followed; another lane ends."""
        if self._lane is not None:
            self._lane.end()
        self._lane = lane
        if self.ended is not None:
            lane.end()

    def close_lane(self, lane: Lane) -> None:
        """Forget a lane that has ended, unless another has taken its place."""
        if self._lane is lane:
            self._lane = None

    def renewed(self, seq: int, now_ms: int) -> None:
        """Replace the waiting answer to a beat, if any: only the last counts."""
        ack = worker_pb2.BeatAck(seq=seq, server_time_ms=now_ms)
        self._beat = worker_pb2.ServerMessage(beat_ack=ack)
        self._some.set()

    def end(self, reason: str) -> None:
        """Say goodbye after what is queued, and end the stream."""
        if self.ended is None:
            self.ended = reason
            self._ended_at = self._clock.monotonic()
            self._some.set()
            if self._lane is not None:
                self._lane.end()

    def welcome(self, opened: Opened, *, server: str, lease_ms: int) -> None:
        """Put the answer to Hello before everything else."""
        welcome = worker_pb2.Welcome(
            session_id=opened.session.id,
            lease_ms=lease_ms,
            revoke=map(_ref, opened.revoke),
            server=server,
            protocol=PROTOCOL,
            logs_key=self._logs_key,
        )
        self._first = worker_pb2.ServerMessage(welcome=welcome)
        self._some.set()

    def acknowledge(self, up_to: int) -> None:
        """Note that the worker has accepted every Assign up to this number."""
        if not self._acknowledged <= up_to <= self._number:
            raise InvalidInput("assign_ack.up_to", f"{up_to}; {self._acknowledged} to {self._number} are allowed")
        self._acknowledged = up_to
        while self._sent_at and self._sent_at[0][0] <= up_to:
            self._sent_at.pop(0)

    def overdue(self) -> str | None:
        """Return what the worker has not done in time, if anything: acknowledge, or read at all."""
        now = self._clock.monotonic()
        if self._sent_at and now - self._sent_at[0][1] > ACK_SECONDS:
            return f"an assignment was not acknowledged for more than {ACK_SECONDS:g} seconds"
        if self._writing_since is not None and now - self._writing_since > WRITE_SECONDS:
            return f"the worker has not read for {WRITE_SECONDS:g} seconds"
        return None

    def is_over(self) -> bool:
        """Return whether the goodbye has had its time."""
        return self.ended is not None and self._clock.monotonic() - self._ended_at > GOODBYE_SECONDS

    async def next_message(self) -> Outbound | None:
        """Return the next message, as soon as there is one; None once the stream is to end."""
        while True:
            message = self._pop()
            if message is not None:
                return message
            if self.ended is not None:
                return None
            self._some.clear()
            await self._some.wait()

    def writing(self) -> None:
        """Start the time that the worker has to read."""
        self._writing_since = self._clock.monotonic()

    def written(self, message: Outbound) -> None:
        """Start the time that the worker has to acknowledge an Assign; it may have done so already."""
        self._writing_since = None
        if message.number > self._acknowledged:
            self._sent_at.append((message.number, self._clock.monotonic()))

    def _queue(self, message: worker_pb2.ServerMessage) -> None:
        self._messages.append(_encoded(message))
        self._some.set()

    def _pop(self) -> Outbound | None:
        if self._first is not None:
            message, self._first = self._first, None
            return _encoded(message)
        if self._beat is not None:
            message, self._beat = self._beat, None
            return _encoded(message)
        if self._messages:
            return self._messages.pop(0)
        if self._answers:
            answers, self._answers = self._answers, []
            return Outbound(wire.result_acks(answers))
        return None


def _encoded(message: worker_pb2.ServerMessage) -> Outbound:
    return Outbound(message.SerializeToString())


def _ref(attempt: AttemptRef) -> worker_pb2.AttemptRef:
    return worker_pb2.AttemptRef(job_id=attempt.job_id, fence=attempt.fence, token=attempt.token)


def _ack(attempt: AttemptRef, verdict: Verdict) -> worker_pb2.ResultAcks.Ack:
    return worker_pb2.ResultAcks.Ack(attempt=_ref(attempt), verdict=VERDICTS[verdict])
