"""One session: from Hello to the end of the stream.

One task reads, one writes, one beats; whichever ends first ends the session. None of them is ever
cancelled while gRPC works for it (that leaks, grpc#43360): the call is cancelled, and they end by themselves.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import grpc
import grpc.aio

from orqestra._dispatch import wire
from orqestra.clock import Clock
from orqestra.failpoint import Point, reached
from orqestra.log import get_logger
from orqestra.v1.worker_pb2 import Beat, Goodbye, Held, Hello, ServerMessage, Welcome, WorkerMessage
from orqestra.worker.jobs import Jobs
from orqestra.worker.lease import Lease, boot_seconds
from orqestra.worker.logs import follow
from orqestra.worker.outgoing import attempt_of

PROTOCOL: Final = 1
# From the attempt to connect to Welcome.
WELCOME_SECONDS: Final = 5.0
# How long a server may take to end a stream that the worker has closed.
CLOSE_SECONDS: Final = 1.0

# Bytes both ways: what is said of jobs by the hundred is read and written by `wire`.
Call = grpc.aio.StreamStreamCall[bytes, bytes]

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class StreamEnd:
    """Why a stream ended: `kind` groups what is worth one log line, `reason` is for people.

    `proven`: the server had renewed the lease of this session, so the next attempt may come soon.
    """

    kind: str
    reason: str
    retry_after_ms: int = 0
    proven: bool = False


class Stream:
    """One call of Work. `on_welcome` is called once the session is open and all of `jobs` is settled."""

    def __init__(
        self,
        call: Call,
        jobs: Jobs,
        clock: Clock,
        on_welcome: Callable[[Welcome], None],
        *,
        welcome_seconds: float = WELCOME_SECONDS,
    ) -> None:
        self._call = call
        self._jobs = jobs
        self._outgoing = jobs.outgoing
        self._clock = clock
        self._on_welcome = on_welcome
        self._welcome_seconds = welcome_seconds
        self._lease: Lease | None = None
        self._welcomed = asyncio.Event()
        self._beat_now = asyncio.Event()
        self._closing = False
        self._over = asyncio.Event()
        self._proven = False
        self._hello_sent_at = 0.0

    async def run(self, hello: Hello) -> StreamEnd:
        """Open the session with `hello` and serve it; return when the stream is over, its tasks too."""
        self._hello_sent_at = boot_seconds()
        tasks = [asyncio.create_task(work) for work in (self._beat(), self._read(), self._write(hello))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._stop()
            await asyncio.gather(*tasks, return_exceptions=True)
        return replace(_end_of(next(task for task in tasks if task in done)), proven=self._proven)

    def beat_now(self) -> None:
        """Send a beat before the next is due: the slots have changed."""
        self._beat_now.set()

    def close(self) -> None:
        """Write what waits, then end the stream; `run` returns."""
        self._closing = True
        if self._welcomed.is_set():
            self._outgoing.wake()
        else:
            self._stop()

    def abandon(self) -> None:
        """End the stream as if it had broken; `run` returns."""
        self._stop()

    async def _beat(self) -> StreamEnd:
        if not await self._clock.wait(self._welcomed, self._welcome_seconds):
            return StreamEnd(kind="NO_WELCOME", reason=f"no welcome within {self._welcome_seconds:g} s")
        number, due = 0, 0.0
        while (lease := self._lease) is not None and not self._over.is_set():
            now = boot_seconds()
            if (patience := lease.seconds_until_silent(now)) <= 0:
                return StreamEnd(kind="SILENT", reason="no beat was acknowledged for too long")
            if now >= due or self._beat_now.is_set():
                self._beat_now.clear()
                number += 1
                lease.sent(number, now)
                self._outgoing.beat(Beat(seq=number, slots=self._jobs.offered_slots, health=self._jobs.health))
                due = now + lease.beat_seconds
            await self._clock.wait(self._beat_now, min(patience, due - now))
        return StreamEnd(kind="CLOSED", reason="closed by this worker")

    async def _write(self, hello: Hello) -> StreamEnd:
        try:
            await self._connected()
            await self._call.write(WorkerMessage(hello=hello).SerializeToString())
            await self._welcomed.wait()
            await self._write_all()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            # The call has ended, and the reader is told why.
            await self._over.wait()
        return StreamEnd(kind="CLOSED", reason="closed by this worker")

    async def _connected(self) -> None:
        """Return once there is a connection or the stream is over: a write would wait for one beyond the cancel."""
        waits = [asyncio.create_task(self._call.wait_for_connection()), asyncio.create_task(self._over.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)

    async def _write_all(self) -> None:
        while not self._over.is_set():
            message = self._outgoing.next()
            if message is not None:
                await self._call.write(message)
            elif self._closing:
                await self._call.done_writing()
                await self._clock.wait(self._over, CLOSE_SECONDS)
                break
            else:
                await self._outgoing.wait()

    async def _read(self) -> StreamEnd:
        while (message := await self._call.read()) is not grpc.aio.EOF:
            assert isinstance(message, bytes)
            if not self._take(message) and (end := self._handle(ServerMessage.FromString(message))) is not None:
                return end
        return StreamEnd(kind="ENDED", reason="the server ended the stream")

    def _take(self, message: bytes) -> bool:
        """Act on what comes by the hundred; return whether this is such a message."""
        if self._lease is None:
            return False
        if (assigned := wire.assigned(message, apart=self._jobs.can_start)) is not None:
            reached(Point.RECEIVED)
            self._outgoing.acknowledge(assigned.number)
            self._jobs.accept(assigned)
            return True
        return self._jobs.acknowledged(message)

    def _handle(self, message: ServerMessage) -> StreamEnd | None:
        """Act on a message; return the end of the stream if it is one."""
        kind = message.WhichOneof("message")
        if kind == "welcome":
            return self._welcome(message.welcome)
        if kind == "goodbye":
            return _goodbye(message.goodbye)
        if self._lease is None:
            return StreamEnd(kind="PROTOCOL", reason=f"the server sent {kind} before Welcome")
        if kind == "beat_ack":
            self._beat_acknowledged(self._lease, message.beat_ack.seq)
        else:
            self._handle_rest(kind, message)
        return None

    def _handle_rest(self, kind: str | None, message: ServerMessage) -> None:
        match kind:
            case "assign" | "result_acks":
                # A later version has said more beside it.
                message.DiscardUnknownFields()
                self._take(message.SerializeToString())
            case "output_ack":
                self._jobs.output_stored(message.output_ack)
            case "cancel":
                self._jobs.cancel(map(attempt_of, message.cancel.attempts))
            case "follow":
                follow(self._jobs, message.follow)
            case "list_held":
                self._outgoing.answer_held(Held(seq=message.list_held.seq, held=self._jobs.held()))
            case _:
                # A newer server may say what this worker does not know; it must work without.
                log.debug("unknown message", kind=kind)

    def _welcome(self, welcome: Welcome) -> StreamEnd | None:
        if welcome.protocol != PROTOCOL:
            reason = f"the server speaks protocol {welcome.protocol}, this worker {PROTOCOL}: upgrade one of them"
            return StreamEnd(kind="PROTOCOL", reason=reason)
        if self._lease is not None or welcome.lease_ms <= 0:
            return StreamEnd(kind="PROTOCOL", reason="a second Welcome, or one without a lease")
        self._lease = Lease(welcome.lease_ms / 1000, self._hello_sent_at, boot_seconds())
        self._jobs.lease = self._lease
        self._jobs.revoke(map(attempt_of, welcome.revoke))
        self._on_welcome(welcome)
        self._welcomed.set()
        self._jobs.start_waiting()
        return None

    def _beat_acknowledged(self, lease: Lease, beat: int) -> None:
        if lease.covered(beat, boot_seconds()):
            self._proven = True
            # There are jobs that wait if the lease had not been sure for a while.
            self._jobs.start_waiting()

    def _stop(self) -> None:
        """Let all tasks end: gRPC's answers to the cancelled call end those that wait for it."""
        self._over.set()
        self._call.cancel()
        self._welcomed.set()
        self._beat_now.set()
        self._outgoing.wake()


def _goodbye(goodbye: Goodbye) -> StreamEnd:
    reason = f"the server said goodbye: {goodbye.reason}"
    return StreamEnd(kind="GOODBYE", reason=reason, retry_after_ms=goodbye.retry_after_ms)


def _end_of(task: asyncio.Task[StreamEnd]) -> StreamEnd:
    if task.cancelled():
        return StreamEnd(kind="CANCELLED", reason="the call was cancelled")
    error = task.exception()
    if error is None:
        return task.result()
    if isinstance(error, grpc.aio.AioRpcError):
        return StreamEnd(kind=error.code().name, reason=error.details() or error.code().name)
    # The next stream may do better, and the commands must go on in any case.
    log.error("fault in the stream", exc_info=error)
    return StreamEnd(kind="FAULT", reason=f"{type(error).__name__}: {error}")
