"""The stream of one worker: a reader and a writer, and the peer that the engine talks to.

Everything the engine wants to say is queued here and returns at once; the writer merges what waits into
as few messages as it can. Beats have a place of their own, so that they never wait behind data.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast
from uuid import UUID

import grpc
from google.protobuf.message import DecodeError

from orqestra.clock import Clock
from orqestra.engine.dispatcher import Dispatcher
from orqestra.engine.outputs import LiveChunk, Outputs
from orqestra.engine.sessions import Greeting, Opened, Session, Sessions
from orqestra.engine.settlement import Settlement
from orqestra.log import get_logger
from orqestra.model import limits
from orqestra.model.errors import InvalidInput, Refused, Unavailable
from orqestra.model.job import check_name, check_range, check_text, label_list
from orqestra.model.report import AttemptRef, Verdict
from orqestra.rpc import results
from orqestra.rpc.statuses import Context, as_status
from orqestra.store.database import Row
from orqestra.v1 import jobs_pb2, worker_pb2, worker_pb2_grpc

PROTOCOL: Final = 1
HELLO_SECONDS: Final = 5.0
ACK_SECONDS: Final = 2.0

VERDICTS: Final = {
    Verdict.ACCEPTED: worker_pb2.ResultAcks.VERDICT_ACCEPTED,
    Verdict.DUPLICATE: worker_pb2.ResultAcks.VERDICT_DUPLICATE,
    Verdict.STALE: worker_pb2.ResultAcks.VERDICT_STALE,
    Verdict.UNKNOWN: worker_pb2.ResultAcks.VERDICT_UNKNOWN,
}

log = get_logger(__name__)


class StreamPeer:
    """What the engine says to one worker, waiting to be written."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._first: worker_pb2.ServerMessage | None = None
        self._beat: worker_pb2.ServerMessage | None = None
        self._messages: deque[worker_pb2.ServerMessage] = deque()
        self._answers: list[tuple[AttemptRef, Verdict]] = []
        self._some = asyncio.Event()
        self._number = 0
        self._acknowledged = 0
        self._sent_at: deque[tuple[int, float]] = deque()
        self.ended: str | None = None

    def assign(self, jobs: Sequence[Row], previous: Mapping[int, bytes]) -> None:
        """Queue one Assign message."""
        self._number += 1
        self._queue(
            worker_pb2.ServerMessage(
                assign=worker_pb2.Assign(number=self._number, jobs=[_assignment(job, previous) for job in jobs])
            )
        )

    def answer(self, verdicts: Sequence[tuple[AttemptRef, Verdict]]) -> None:
        """Queue verdicts; all that wait go in one message."""
        self._answers.extend(verdicts)
        self._some.set()

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

    def follow(self, attempt: AttemptRef, *, stop: bool) -> None:
        """Queue the wish for live output."""
        follow = worker_pb2.Follow(attempt=_ref(attempt), stop=stop)
        self._queue(worker_pb2.ServerMessage(follow=follow))

    def renewed(self, seq: int, now_ms: int) -> None:
        """Replace the waiting answer to a beat, if any: only the last counts."""
        ack = worker_pb2.BeatAck(seq=seq, server_time_ms=now_ms)
        self._beat = worker_pb2.ServerMessage(beat_ack=ack)
        self._some.set()

    def end(self, reason: str) -> None:
        """Say goodbye after what is queued, and end the stream."""
        if self.ended is None:
            self.ended = reason
            self._some.set()

    def welcome(self, opened: Opened, *, server: str, lease_ms: int) -> None:
        """Put the answer to Hello before everything else."""
        welcome = worker_pb2.Welcome(
            session_id=opened.session.id,
            lease_ms=lease_ms,
            revoke=map(_ref, opened.revoke),
            server=server,
            protocol=PROTOCOL,
        )
        self._first = worker_pb2.ServerMessage(welcome=welcome)
        self._some.set()

    def acknowledge(self, up_to: int) -> None:
        """Note that the worker has accepted every Assign up to this number."""
        if not self._acknowledged <= up_to <= self._number:
            raise InvalidInput("assign_ack.up_to", f"{up_to}; {self._acknowledged} to {self._number} are allowed")
        self._acknowledged = up_to
        while self._sent_at and self._sent_at[0][0] <= up_to:
            self._sent_at.popleft()

    def is_overdue(self) -> bool:
        """Return whether an Assign that was written has not been acknowledged in time."""
        return bool(self._sent_at) and self._clock.monotonic() - self._sent_at[0][1] > ACK_SECONDS

    async def next_message(self) -> worker_pb2.ServerMessage | None:
        """Return the next message, as soon as there is one; None once the stream is to end."""
        while True:
            message = self._pop()
            if message is not None:
                return message
            if self.ended is not None:
                return None
            self._some.clear()
            await self._some.wait()

    def written(self, message: worker_pb2.ServerMessage) -> None:
        """Start the time that the worker has to acknowledge an Assign; it may have done so already."""
        if message.HasField("assign") and message.assign.number > self._acknowledged:
            self._sent_at.append((message.assign.number, self._clock.monotonic()))

    def _queue(self, message: worker_pb2.ServerMessage) -> None:
        self._messages.append(message)
        self._some.set()

    def _pop(self) -> worker_pb2.ServerMessage | None:
        if self._first is not None:
            message, self._first = self._first, None
            return message
        if self._beat is not None:
            message, self._beat = self._beat, None
            return message
        if self._messages:
            return self._messages.popleft()
        if self._answers:
            answers, self._answers = self._answers, []
            acks = [_ack(attempt, verdict) for attempt, verdict in answers]
            return worker_pb2.ServerMessage(result_acks=worker_pb2.ResultAcks(acks=acks))
        return None


class WorkerStreams(worker_pb2_grpc.WorkerServiceServicer):
    """The stream that worker.proto describes. docs/protocol.md has the rules."""

    def __init__(
        self, *, clock: Clock, sessions: Sessions, dispatcher: Dispatcher, settlement: Settlement, outputs: Outputs
    ) -> None:
        self._clock = clock
        self._sessions = sessions
        self._dispatcher = dispatcher
        self._settlement = settlement
        self._outputs = outputs

    async def Work(self, _requests: Any, context: Context) -> None:
        async with as_status(context):
            peer = StreamPeer(self._clock)
            session = await self._greet(context, peer)
            reader = asyncio.create_task(self._read(session, peer, context), name=f"read session {session.id}")
            try:
                await self._write(peer, context)
            finally:
                await self._leave(session, reader)
            if reader.done() and not reader.cancelled() and (fault := reader.exception()) is not None:
                raise fault

    async def _greet(self, context: Context, peer: StreamPeer) -> Session:
        message = await self._first_message(context)
        greeting = _greeting(message)
        opened = await self._sessions.open(greeting, peer)
        if opened is None:
            raise Refused(f"worker {greeting.worker_id} has a newer stream than number {greeting.number}")
        peer.welcome(opened, server=self._sessions.server_name, lease_ms=self._sessions.lease_ms)
        self._dispatcher.wake()
        return opened.session

    async def _first_message(self, context: Context) -> worker_pb2.WorkerMessage:
        first = asyncio.create_task(_read_one(context))
        # A stream whose Hello never comes is aborted, which ends the read; the read itself is never cancelled.
        done, _ = await asyncio.wait([first], timeout=HELLO_SECONDS)
        if not done:
            first.add_done_callback(_take_error)
            raise InvalidInput("hello", f"did not come within {HELLO_SECONDS:g} seconds")
        message = first.result()
        if message is None or not message.HasField("hello"):
            raise InvalidInput("message", "the first message of a stream must be Hello")
        return message

    async def _read(self, session: Session, peer: StreamPeer, context: Context) -> None:
        """Read until the worker ends its side, then let the writer end too."""
        try:
            while (message := await _read_one(context)) is not None:
                session.heard = True
                self._handle(session, peer, message)
            peer.end("the worker ended the stream")
        except InvalidInput as error:
            log.warning("worker sent something wrong", session=session.id, error=str(error))
            peer.end(str(error))
            raise
        except (grpc.aio.UsageError, grpc.aio.InternalError, asyncio.CancelledError):
            log.debug("the stream of a worker broke", session=session.id)
        finally:
            # Whatever ended the reading ends the writing; a reason that was given before stays.
            peer.end("the stream broke")

    def _handle(self, session: Session, peer: StreamPeer, message: worker_pb2.WorkerMessage) -> None:
        match message.WhichOneof("message"):
            case "beat":
                check_range("beat.slots", message.beat.slots, 0, limits.SLOTS_MAX)
                session.beat = message.beat.seq
                self._sessions.set_slots(session, message.beat.slots)
            case "results":
                reports = results.reports(session.id, message.results)
                self._settlement.settle(reports)
                self._dispatcher.finished([session.id] * len(reports))
            case "assign_ack":
                peer.acknowledge(message.assign_ack.up_to)
            case "assign_nack":
                reports = results.returned(session.id, message.assign_nack)
                self._settlement.settle(reports)
                self._dispatcher.finished([session.id] * len(reports))
            case "store_output":
                self._outputs.store(results.piece(session.id, message.store_output))
            case "live_output":
                live = message.live_output
                chunk = LiveChunk(fence=live.fence, stream=live.stream, offset=live.offset, data=live.data)
                self._outputs.live(live.job_id, chunk)
            case "held":
                return
            case other:
                raise InvalidInput("message", f"{other or 'an unknown message'} is not allowed here")

    async def _write(self, peer: StreamPeer, context: Context) -> None:
        watchdog = asyncio.create_task(_watch_acks(peer))
        try:
            while (message := await peer.next_message()) is not None:
                await context.write(message)
                peer.written(message)
            goodbye = worker_pb2.Goodbye(reason=peer.ended or "")
            await context.write(worker_pb2.ServerMessage(goodbye=goodbye))
        finally:
            watchdog.cancel()

    async def _leave(self, session: Session, reader: "asyncio.Task[None]") -> None:
        self._sessions.end(session.id, reason="its stream is over")
        reader.cancel()
        try:
            await self._sessions.close(session.id)
        except Unavailable as error:
            log.info("session left to its lease", session=session.id, reason=str(error))


async def _watch_acks(peer: StreamPeer) -> None:
    """End a stream whose worker does not acknowledge; its next Hello says what it really holds."""
    while True:
        await asyncio.sleep(ACK_SECONDS / 4)
        if peer.is_overdue():
            peer.end(f"an assignment was not acknowledged within {ACK_SECONDS:g} seconds")
            return


def _take_error(read: "asyncio.Task[worker_pb2.WorkerMessage | None]") -> None:
    """Take the error that ends a read nobody waits for any more, or asyncio would complain of it."""
    if not read.cancelled():
        read.exception()


async def _read_one(context: Context) -> worker_pb2.WorkerMessage | None:
    try:
        message = await context.read()
    except DecodeError as error:
        raise InvalidInput("message", f"cannot be read as a message of a worker: {error}") from error
    return None if message is grpc.aio.EOF else message


def _greeting(message: worker_pb2.WorkerMessage) -> Greeting:
    hello = message.hello
    if hello.protocol != PROTOCOL:
        raise InvalidInput("hello.protocol", f"{hello.protocol}; this server speaks {PROTOCOL}")
    check_range("hello.slots", hello.slots, 0, limits.SLOTS_MAX)
    check_range("hello.queues", len(hello.queues), 1, limits.WORKER_QUEUES)
    check_range("hello.number", hello.number, 1, 2**62)
    check_text("hello.name", hello.name, limits.NAME_CHARS)
    for queue in hello.queues:
        check_name("hello.queues", queue)
    finished = worker_pb2.HeldAttempt.PHASE_FINISHED
    return Greeting(
        worker_id=_uuid("hello.worker_id", hello.worker_id),
        incarnation=_uuid("hello.incarnation", hello.incarnation),
        number=hello.number,
        name=hello.name,
        slots=hello.slots,
        queues=tuple(hello.queues),
        labels=label_list(hello.labels, "hello.labels"),
        held=tuple(results.attempt_ref(each.attempt) for each in hello.held if each.phase != finished),
        finished=tuple(results.attempt_ref(each.attempt) for each in hello.held if each.phase == finished),
    )


def _uuid(field: str, text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise InvalidInput(field, f"{text!r} is not a UUID") from error


def _assignment(job: Row, previous: Mapping[int, bytes]) -> worker_pb2.Assignment:
    return worker_pb2.Assignment(
        attempt=worker_pb2.AttemptRef(job_id=job["id"], fence=job["fence"], token=job["token"]),
        type=job["type"],
        payload=job["payload"],
        attempt_number=job["attempt"] + 1,
        timeout_ms=job["timeout_ms"],
        grace_ms=job["grace_ms"],
        run_id=job["run_id"] or 0,
        step=job["step_key"] or "",
        has_previous_output=job["previous_job_id"] is not None,
        previous_output=previous.get(job["previous_job_id"], b""),
    )


def _ref(attempt: AttemptRef) -> worker_pb2.AttemptRef:
    return worker_pb2.AttemptRef(job_id=attempt.job_id, fence=attempt.fence, token=attempt.token)


def _ack(attempt: AttemptRef, verdict: Verdict) -> worker_pb2.ResultAcks.Ack:
    return worker_pb2.ResultAcks.Ack(attempt=_ref(attempt), verdict=VERDICTS[verdict])
