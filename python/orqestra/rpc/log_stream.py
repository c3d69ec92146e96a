"""The Logs stream of one session: live output on a connection of its own, so that it holds up nothing else."""

import asyncio

import grpc

from orqestra.engine.live import Live
from orqestra.engine.sessions import Session, Sessions
from orqestra.log import get_logger
from orqestra.model import limits
from orqestra.model.errors import InvalidInput, Refused
from orqestra.model.live import LiveChunk
from orqestra.rpc.incoming import decode, read_hello, read_one, take_error
from orqestra.rpc.lane import Lane
from orqestra.rpc.peer import StreamPeer
from orqestra.rpc.statuses import Context
from orqestra.v1 import worker_pb2

log = get_logger(__name__)


class LogStreams:
    """Serves Logs: each stream belongs to an open session of this server, which its key proves."""

    def __init__(self, sessions: Sessions, live: Live) -> None:
        self._sessions = sessions
        self._live = live

    async def serve(self, context: Context) -> None:
        """Serve one stream until the worker ends it, its session ends or another lane takes its place."""
        session, peer = await self._greet(context)
        lane = Lane()
        reader = asyncio.create_task(self._read(session, lane, context), name=f"read logs {session.id}")
        # The read ends with the call; a read that is cancelled would leak (grpc#43360).
        reader.add_done_callback(take_error)
        peer.open_lane(lane)
        self._live.ask_again(session.id)
        try:
            while (message := await lane.next_message()) is not None:
                await context.write(message.SerializeToString())
        finally:
            lane.end()
            peer.close_lane(lane)
            # Whoever still follows must have the worker open another one.
            self._live.ask_again(session.id)
        if reader.done() and not reader.cancelled() and (fault := reader.exception()) is not None:
            raise fault

    async def _greet(self, context: Context) -> tuple[Session, StreamPeer]:
        hello = (await read_hello(context, worker_pb2.LogsUp)).hello
        session = self._sessions.get(hello.session_id)
        if session is not None and isinstance(session.peer, StreamPeer) and session.peer.opens(hello.key):
            return session, session.peer
        raise Refused(f"session {hello.session_id} is not open at this server, or the key is not its own")

    async def _read(self, session: Session, lane: Lane, context: Context) -> None:
        try:
            while (message := await read_one(context)) is not None:
                self._take(session, lane, decode(worker_pb2.LogsUp, message))
        except (grpc.aio.UsageError, grpc.aio.InternalError, asyncio.CancelledError):
            log.debug("the logs of a worker broke", session=session.id)
        finally:
            lane.end()

    def _take(self, session: Session, lane: Lane, message: worker_pb2.LogsUp) -> None:
        if not message.HasField("output"):
            raise InvalidInput("message", "only LiveOutput is allowed after LogsHello")
        lane.took(len(message.output.data))
        self._live.wrote(session, live_chunk(message.output))


def live_chunk(output: worker_pb2.LiveOutput) -> LiveChunk:
    """Return live output as the engine knows it.

    Raises:
        InvalidInput: it is too long, or its stream or place can't be.
    """
    if output.stream not in (1, 2):
        raise InvalidInput("output.stream", f"{output.stream}; stdout (1) and stderr (2) are allowed")
    if len(output.data) > limits.OUTPUT_CHUNK_BYTES:
        raise InvalidInput("output.data", f"{len(output.data)} bytes; at most {limits.OUTPUT_CHUNK_BYTES} are allowed")
    if output.offset < 0 or output.total < 0:
        raise InvalidInput("output.offset", "must not be negative, nor the total")
    return LiveChunk(
        job_id=output.job_id,
        fence=output.fence,
        stream=output.stream,
        offset=output.offset,
        total=output.total,
        data=output.data,
    )
