"""The Logs stream of a raw worker, exactly as a test tells it."""

import asyncio
from types import TracebackType
from typing import Any, Self

import grpc

from orqestra.v1.jobs_pb2 import STREAM_STDOUT
from orqestra.v1.worker_pb2 import Assignment, Credit, Follow, LiveOutput, LogsDown, LogsHello, LogsUp
from orqestra.v1.worker_pb2_grpc import WorkerServiceStub
from tests.support.raw_worker import WAIT_SECONDS, RawStream


class RawLane:
    """One call of Logs on a connection of its own. Wishes and grants are kept until a test asks for them."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=(("grpc.use_local_subchannel_pool", 1),))
        self._call: Any = WorkerServiceStub(self._channel).Logs()
        self.follows: asyncio.Queue[Follow] = asyncio.Queue()
        self.credits: asyncio.Queue[Credit] = asyncio.Queue()
        self._granted = asyncio.Event()
        self._over = asyncio.Event()
        self._reader = asyncio.create_task(self._read(), name="raw lane")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call.cancel()
        await self._over.wait()
        await self._reader
        await self._channel.close()

    @classmethod
    def of(cls, address: str) -> "RawLane":
        """Begin a lane without a word."""
        return cls(address)

    async def open(self, stream: RawStream, *, key: bytes | None = None) -> None:
        """Say hello for a session."""
        hello = LogsHello(session_id=stream.welcome.session_id, key=stream.welcome.logs_key if key is None else key)
        await self.send(hello=hello)

    async def send(self, **message: Any) -> None:
        """Send one message."""
        await self._call.write(LogsUp(**message))

    async def write(self, job: Assignment, offset: int, data: bytes, *, total: int = 0, granted: bool = True) -> None:
        """Send live output of a job, once anything was granted; a wish may come before that."""
        if granted:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._granted.wait()
        attempt = job.attempt
        output = LiveOutput(
            job_id=attempt.job_id,
            fence=attempt.fence,
            stream=STREAM_STDOUT,
            offset=offset,
            data=data,
            total=total or offset + len(data),
        )
        await self.send(output=output)

    async def follow(self) -> Follow:
        """Return the next wish."""
        async with asyncio.timeout(WAIT_SECONDS):
            return await self.follows.get()

    async def credit(self) -> int:
        """Return the next grant."""
        async with asyncio.timeout(WAIT_SECONDS):
            return (await self.credits.get()).bytes

    async def end(self) -> tuple[grpc.StatusCode, str]:
        """Wait until the server ends it; return the status and its message."""
        async with asyncio.timeout(WAIT_SECONDS):
            await self._over.wait()
        return await self._call.code(), await self._call.details()

    async def hang_up(self) -> None:
        """End this side in good order and wait for the server's."""
        await self._call.done_writing()
        await self.end()

    async def _read(self) -> None:
        try:
            while (message := await self._call.read()) is not grpc.aio.EOF:
                assert isinstance(message, LogsDown)
                if message.HasField("follow"):
                    self.follows.put_nowait(message.follow)
                else:
                    self.credits.put_nowait(message.credit)
                    self._granted.set()
        except (grpc.aio.AioRpcError, asyncio.CancelledError, asyncio.InvalidStateError):
            pass  # `end` tells how
        finally:
            self._over.set()
