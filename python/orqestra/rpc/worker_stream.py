"""The stream of one worker: its greeting, what is read from it, and how it ends."""

import asyncio
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import grpc

from orqestra._dispatch import wire
from orqestra.engine.dispatcher import Dispatcher
from orqestra.engine.hellos import Greeting
from orqestra.engine.inventory import Inventory
from orqestra.engine.live import Live
from orqestra.engine.outputs import Outputs
from orqestra.engine.sessions import Session, Sessions
from orqestra.engine.settlement import Settlement
from orqestra.failpoint import Point, reached
from orqestra.log import get_logger
from orqestra.model import limits
from orqestra.model.errors import InvalidInput, Refused, Unavailable
from orqestra.model.job import check_name, check_range, check_text, label_list
from orqestra.rpc import results
from orqestra.rpc.deadlines import Deadlines
from orqestra.rpc.incoming import decode, read_hello, read_one, take_error
from orqestra.rpc.log_stream import LogStreams, live_chunk
from orqestra.rpc.peer import PROTOCOL, StreamPeer
from orqestra.rpc.statuses import Context, as_status
from orqestra.v1 import worker_pb2

# Of what a worker says of itself.
HEALTH_CHARS: Final = 500

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Receivers:
    """Who takes what workers tell."""

    settlement: Settlement
    outputs: Outputs
    inventory: Inventory
    live: Live


class WorkerStreams:
    """The stream that worker.proto describes. docs/protocol.md has the rules.

    Both are given bytes and give bytes: what is said of jobs by the hundred is read and written by `wire`.
    """

    def __init__(
        self,
        *,
        sessions: Sessions,
        dispatcher: Dispatcher,
        receivers: Receivers,
    ) -> None:
        self._clock = dispatcher.clock
        self.deadlines = Deadlines(dispatcher.clock, sessions)
        self._sessions = sessions
        self._dispatcher = dispatcher
        self._settlement = receivers.settlement
        self._outputs = receivers.outputs
        self._inventory = receivers.inventory
        self._live = receivers.live
        self._logs = LogStreams(sessions, receivers.live)
        self._closing: set[asyncio.Task[None]] = set()

    async def Work(self, _requests: Any, context: Context) -> None:
        async with as_status(context):
            peer = StreamPeer(self._clock)
            session = await self._greet(context, peer)
            reader = asyncio.create_task(self._read(session, peer, context), name=f"read session {session.id}")
            # The read ends with the call; a read that is cancelled would leak (grpc#43360).
            reader.add_done_callback(take_error)
            writer = asyncio.create_task(_write(peer, context), name=f"write session {session.id}")
            try:
                with self.deadlines.kept(session, peer, writer):
                    await asyncio.wait([writer])
                if not writer.cancelled():
                    writer.result()
            finally:
                writer.cancel()
                await self._leave(session)
            if reader.done() and not reader.cancelled() and (fault := reader.exception()) is not None:
                raise fault

    async def Logs(self, _requests: Any, context: Context) -> None:
        async with as_status(context):
            await self._logs.serve(context)

    async def _greet(self, context: Context, peer: StreamPeer) -> Session:
        greeting = _greeting(await read_hello(context, worker_pb2.WorkerMessage))
        opened = await self._sessions.open(greeting, peer)
        if opened is None:
            raise Refused(f"worker {greeting.worker_id} has a newer stream than number {greeting.number}")
        peer.welcome(opened, server=self._sessions.server_name, lease_ms=self._sessions.lease_ms)
        self._dispatcher.wake()
        return opened.session

    async def _read(self, session: Session, peer: StreamPeer, context: Context) -> None:
        """Read until the worker ends its side, then let the writer end too."""
        try:
            while (message := await read_one(context)) is not None:
                session.heard = True
                self._take(session, peer, message)
                del message  # not kept until the next one comes
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

    def _take(self, session: Session, peer: StreamPeer, message: bytes) -> None:
        try:
            parts = wire.results(session.id, message)
        except ValueError:
            parts = None  # protobuf says what is wrong
        if parts is None:
            self._handle(session, peer, decode(worker_pb2.WorkerMessage, message))
            return
        for part in parts:
            others = results.reports(session.id, part.others())
            self._settlement.settle_results(part)
            if others:
                self._settlement.settle(others)
            self._dispatcher.ended(session, part)

    def _handle(self, session: Session, peer: StreamPeer, message: worker_pb2.WorkerMessage) -> None:
        match message.WhichOneof("message"):
            case "beat":
                check_range("beat.slots", message.beat.slots, 0, limits.SLOTS_MAX)
                session.beat = message.beat.seq
                session.health = _plain(message.beat.health)
                self._sessions.set_slots(session, message.beat.slots)
            case "results":
                # A later version has said more beside it.
                message.DiscardUnknownFields()
                self._take(session, peer, message.SerializeToString())
            case "assign_ack":
                peer.acknowledge(message.assign_ack.up_to)
            case "assign_nack":
                reports = results.returned(session.id, message.assign_nack)
                self._settlement.settle(reports)
                self._dispatcher.handed_back(session, (report.attempt for report in reports))
            case "store_output":
                self._outputs.store(results.piece(session.id, message.store_output))
            case "live_output":
                # From a worker that knows no Logs.
                self._live.wrote(session, live_chunk(message.live_output))
            case "held":
                held, finished = results.held(message.held.held)
                self._inventory.answered(session, message.held.seq, held, finished)
            case other:
                raise InvalidInput("message", f"{other or 'an unknown message'} is not allowed here")

    async def _leave(self, session: Session) -> None:
        if self._sessions.get(session.id) not in (None, session):
            return  # another stream has its id, from a Postgres that was put back to an older state
        self._sessions.end(session.id, reason="its stream is over")
        # gRPC cancels the call once the worker has closed its connection, which it does at the goodbye.
        closing = asyncio.create_task(self._close(session), name=f"close session {session.id}")
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        await asyncio.shield(closing)

    async def _close(self, session: Session) -> None:
        try:
            await self._sessions.close(session)
        except Unavailable as error:
            log.info("session left to its lease", session=session.id, reason=str(error))


async def _write(peer: StreamPeer, context: Context) -> None:
    while (message := await peer.next_message()) is not None:
        peer.writing()
        await context.write(message.message)
        peer.written(message)
        if message.number:
            reached(Point.SENT)
        del message  # as above
    goodbye = worker_pb2.Goodbye(reason=peer.ended or "")
    await context.write(worker_pb2.ServerMessage(goodbye=goodbye).SerializeToString())


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
    held, finished = results.held(hello.held)
    return Greeting(
        worker_id=_uuid("hello.worker_id", hello.worker_id),
        incarnation=_uuid("hello.incarnation", hello.incarnation),
        number=hello.number,
        name=hello.name,
        slots=hello.slots,
        queues=tuple(hello.queues),
        labels=label_list(hello.labels, "hello.labels"),
        held=held,
        finished=finished,
    )


def _plain(text: str) -> str:
    """Return a sentence of a worker as one that can be stored and shown."""
    return text.replace("\0", " ")[:HEALTH_CHARS]


def _uuid(field: str, text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise InvalidInput(field, f"{text!r} is not a UUID") from error
