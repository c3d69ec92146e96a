"""Live output on a lane of its own: what waits there, and the connection that carries it.

The lane is opened when the server first asks to follow something, and closed when nothing has been followed
for a while. It sends what the server has granted. Whatever happens to it, work, beats and results are on
another connection; what is too much for it is dropped, the oldest first, and offsets tell the gap.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

import grpc
import grpc.aio

from orqestra.clock import Clock
from orqestra.log import get_logger
from orqestra.model.limits import MIB
from orqestra.model.report import AttemptRef
from orqestra.v1.worker_pb2 import Follow, LiveOutput, LogsDown, LogsHello, LogsUp
from orqestra.v1.worker_pb2_grpc import WorkerServiceStub
from orqestra.worker.outgoing import Outgoing, attempt_of

# What waits of one stream of an attempt. The newest is always kept, or nobody would learn of the gap.
STREAM_BYTES: Final = MIB
# How long the lane stays open while nothing is followed.
IDLE_SECONDS: Final = 30.0
# Between the end of a lane and the next one, drawn evenly up to this.
PAUSE_SECONDS: Final = 0.5
# How long a server may take to end a lane that the worker has closed.
CLOSE_SECONDS: Final = 1.0

Call = grpc.aio.StreamStreamCall[LogsUp, LogsDown]
Offsets = tuple[int, int]

log = get_logger(__name__)


class Follows(Protocol):
    """Who can be asked for the output of an attempt."""

    def follow(self, attempt: AttemptRef, offsets: Offsets, *, stop: bool) -> None:
        """Give live output from these offsets on, or no longer."""
        ...


def follow(jobs: Follows, message: Follow) -> None:
    """Do what a Follow says, on whichever stream it came."""
    offsets = (message.stdout_offset, message.stderr_offset)
    jobs.follow(attempt_of(message.attempt), offsets, stop=message.stop)


class Logs:
    """The attempts that are followed, and what waits to be sent of their output.

    Without a lane (`has_lane` is False) it goes on the Work stream: to a server that knows no other.
    """

    def __init__(self, outgoing: Outgoing) -> None:
        self.followed: set[AttemptRef] = set()
        self.has_lane = False
        self._outgoing = outgoing
        self._streams: dict[tuple[int, int, int], _Waiting] = {}
        self._woken = asyncio.Event()

    def follow(self, attempt: AttemptRef) -> None:
        """Note that an attempt is followed."""
        self.followed.add(attempt)
        self.wake()

    def unfollow(self, attempt: AttemptRef) -> None:
        """Note that nobody follows an attempt any more, and drop what waits of it."""
        self.followed.discard(attempt)
        for name in [name for name in self._streams if name[:2] == (attempt.job_id, attempt.fence)]:
            del self._streams[name]

    def forget(self) -> None:
        """Drop everything: the session is over."""
        self.followed.clear()
        self.drop()

    def drop(self) -> None:
        """Drop what waits: whoever still wants it asks again."""
        self._streams.clear()

    def live(self, output: LiveOutput) -> None:
        """Send a piece, or drop the oldest of its stream if too much waits."""
        if not self.has_lane:
            self._outgoing.live(output)
            return
        name = (output.job_id, output.fence, int(output.stream))
        self._streams.setdefault(name, _Waiting()).push(output)
        self.wake()

    def next(self, credit: int) -> LiveOutput | None:
        """Take the next piece if it is within `credit` bytes; streams take turns."""
        for name, waiting in self._streams.items():
            if waiting.next_bytes > credit:
                return None
            output = waiting.pop()
            del self._streams[name]
            if waiting.next_bytes:
                self._streams[name] = waiting
            return output
        return None

    def wake(self) -> None:
        """Say that something may have changed."""
        self._woken.set()

    async def wait(self, clock: Clock, seconds: float) -> bool:
        """Return True after the next wake, False if none comes for so long."""
        self._woken.clear()
        return await clock.wait(self._woken, seconds)


class _Waiting:
    """What waits of one stream."""

    def __init__(self) -> None:
        self._pieces: deque[LiveOutput] = deque()
        self._bytes = 0
        self._total = 0

    @property
    def next_bytes(self) -> int:
        """How long the next piece is; 0: none waits."""
        return len(self._pieces[0].data) if self._pieces else 0

    def push(self, output: LiveOutput) -> None:
        """Add a piece."""
        self._pieces.append(output)
        self._bytes += len(output.data)
        self._total = max(self._total, output.total, output.offset + len(output.data))
        while self._bytes > STREAM_BYTES:
            self._bytes -= len(self._pieces.popleft().data)

    def pop(self) -> LiveOutput:
        """Take the oldest piece, with what is known of the whole by now."""
        output = self._pieces.popleft()
        self._bytes -= len(output.data)
        output.total = self._total
        return output


class Lane:
    """Carries what waits in `logs` for one session: one call of Logs at a time, while something is followed.

    `open_channel` returns a connection to the server of the session that nothing else uses.
    """

    def __init__(
        self, open_channel: Callable[[], grpc.aio.Channel], hello: LogsHello, jobs: Follows, logs: Logs, clock: Clock
    ) -> None:
        self._open_channel = open_channel
        self._hello = hello
        self._jobs = jobs
        self._logs = logs
        self._clock = clock
        self._credit = 0
        self._stopping = asyncio.Event()
        self._over = asyncio.Event()
        self._call: Call | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Wait for the first wish from now on."""
        self._logs.has_lane = True
        self._task = asyncio.create_task(self._run(), name="logs")

    async def stop(self) -> None:
        """End the call and open no other."""
        self._stopping.set()
        self._logs.has_lane = False
        self._logs.wake()
        self._end_call()
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        while not self._stopping.is_set():
            if not self._logs.followed:
                await self._logs.wait(self._clock, IDLE_SECONDS)
                continue
            try:
                await self._serve()
            except Exception:  # a fault here must cost nothing but live output
                log.exception("fault in the lane of live output")
            await self._clock.wait(self._stopping, random.uniform(0, PAUSE_SECONDS))  # noqa: S311  jitter needs no cryptography

    async def _serve(self) -> None:
        """Serve one call, from the connection to its end."""
        self._over.clear()
        self._credit = 0
        channel = self._open_channel()
        try:
            self._call = WorkerServiceStub(channel).Logs()
            tasks = [asyncio.create_task(work) for work in (self._read(self._call), self._write(self._call))]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            self._end_call()
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            self._call = None
            self._logs.drop()
            await channel.close()

    async def _read(self, call: Call) -> None:
        try:
            while (message := await call.read()) is not grpc.aio.EOF:
                assert isinstance(message, LogsDown)
                match message.WhichOneof("message"):
                    case "follow":
                        follow(self._jobs, message.follow)
                    case "credit":
                        self._credit += message.credit.bytes
                        self._logs.wake()
                    case _:
                        pass  # a newer server may say what this worker does not know
        except grpc.aio.AioRpcError as error:
            log.info("live output was cut off", reason=error.details() or error.code().name)

    async def _write(self, call: Call) -> None:
        try:
            # A write would wait for a connection beyond the cancel.
            await _first_of(call.wait_for_connection(), self._over.wait())
            await call.write(LogsUp(hello=self._hello))
            await self._write_all(call)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            # The call has ended, and the reader is told why.
            await self._over.wait()

    async def _write_all(self, call: Call) -> None:
        while not self._over.is_set():
            output = self._logs.next(self._credit)
            if output is not None:
                self._credit -= len(output.data)
                await call.write(LogsUp(output=output))
            elif not await self._logs.wait(self._clock, IDLE_SECONDS) and not self._logs.followed:
                await call.done_writing()
                await self._clock.wait(self._over, CLOSE_SECONDS)
                return

    def _end_call(self) -> None:
        """Let both tasks end: gRPC's answers to the cancelled call end those that wait for it."""
        self._over.set()
        self._logs.wake()
        if self._call is not None:
            self._call.cancel()


async def _first_of(*works: Coroutine[Any, Any, object]) -> None:
    """Return when one of them has ended, the others too."""
    tasks = [asyncio.create_task(work) for work in works]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
