"""Calls that share a stream: each sends the jobs of one batch and returns their ids, as a unary call would.

A message on a stream that is open costs less than a unary call. The price is that a stream belongs to one
connection and lasts: it is left when its connection is about to end, and when it does not answer in time.
"""

import asyncio
import time
from collections.abc import Sequence
from enum import Enum, auto
from itertools import count
from typing import Final

import grpc
from grpc.aio import AioRpcError, StreamStreamCall

from orqestra.client import failures
from orqestra.client.failures import CallFailed, Failure
from orqestra.client.submit_calls import SubmitCalls
from orqestra.v1 import jobs_pb2

# Shorter than what stands between client and server lets a stream be idle.
IDLE_SECONDS: Final = 10.0
READY: Final = grpc.ChannelConnectivity.READY


class State(Enum):
    """What becomes of one stream, in this order; a state may be left out."""

    CONNECTING = auto()
    """Takes batches; nothing is known of its connection."""
    OPEN = auto()
    """Takes batches, as long as the channel is on the same connection."""
    RETIRED = auto()
    """Takes no more batches, waits for the answers to those that it took."""
    ENDED = auto()


class SubmitLine:
    """Always a stream to send on: opened by the first batch, and anew by the next one after it was left."""

    def __init__(self, calls: SubmitCalls, address: str, *, idle_seconds: float = IDLE_SECONDS) -> None:
        self._calls = calls
        self._address = address
        self._idle_seconds = idle_seconds
        self._newest: _Stream | None = None
        self._streams: set[_Stream] = set()

    async def submit(self, jobs: bytes, *, timeout: float) -> Sequence[int]:
        """Store the jobs of an encoded SubmitStreamRequest, all or none; return their ids in order.

        Raises CallFailed. A caller that is cancelled, or whose time is over, is no matter of the others.
        """
        return await self._stream().submit(jobs, timeout)

    async def written(self) -> None:
        """Return once no write is under way: what is sent now would not have to wait."""
        if self._newest is not None:
            await self._newest.written.wait()

    async def close(self) -> None:
        """End all streams; calls under way fail."""
        streams = tuple(self._streams)
        for stream in streams:
            stream.end()
        await asyncio.gather(*(stream.ended for stream in streams))

    def _stream(self) -> "_Stream":
        if self._newest is None or not self._newest.takes_batches(self._idle_seconds):
            self._newest = stream = _Stream(self._calls, self._address)
            self._streams.add(stream)
            stream.ended.add_done_callback(lambda _: self._streams.discard(stream))
        return self._newest


class _Stream:
    """One SubmitStream, and the answers that are awaited on it."""

    def __init__(self, calls: SubmitCalls, address: str) -> None:
        self.written = asyncio.Event()
        self.written.set()
        self._channel = calls.channel
        self._address = address
        self._call: StreamStreamCall[bytes, jobs_pb2.SubmitStreamResponse] = calls.stream()
        self._state = State.CONNECTING
        self._used_at = time.monotonic()
        self._numbers = count(1)
        self._unwritten: asyncio.Queue[bytes] = asyncio.Queue()
        self._answers: dict[int, asyncio.Future[Sequence[int]]] = {}
        self.ended = asyncio.create_task(self._run(), name="orqestra-submit-line")

    def takes_batches(self, idle_seconds: float) -> bool:
        """Return whether a batch may be sent here.

        A loop that stood still, as that of a SyncClient between calls, has not heard yet what ended meanwhile.
        The channel knows of the connection; who ends only streams, ends those that have long been idle.
        """
        is_left = self._channel.get_state() is not READY or time.monotonic() - self._used_at > idle_seconds
        if self._state is State.OPEN and is_left:
            self._retire()
        return self._state in (State.CONNECTING, State.OPEN)

    async def submit(self, jobs: bytes, timeout: float) -> Sequence[int]:
        """See `SubmitLine.submit`."""
        number = next(self._numbers)
        answer: asyncio.Future[Sequence[int]] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        self._used_at = time.monotonic()
        self.written.clear()
        self._unwritten.put_nowait(jobs_pb2.SubmitStreamRequest(number=number).SerializeToString() + jobs)
        try:
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            self._retire()
            raise CallFailed(_no_answer(self._address, f"none within {timeout:.3g} s")) from None
        finally:
            del self._answers[number]
            self._end_if_answered()

    def end(self) -> None:
        """End the call: whoever still waits is answered with a failure."""
        self._call.cancel()

    async def _run(self) -> None:
        """Write, read and watch the connection, until the call ends for whatever reason."""
        tasks = (asyncio.create_task(self._write()), asyncio.create_task(self._watch()))
        failure = _no_answer(self._address, "it ended the stream")
        try:
            async for answer in self._call:
                self._take(answer)
        except AioRpcError as failed:
            failure = failures.read(failed, self._address)
        except asyncio.CancelledError:
            pass  # by `end`
        finally:
            self._state = State.ENDED
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)  # why the call ended is told by the read
            self.written.set()
            for each in self._answers.values():
                _settle(each, CallFailed(failure))

    async def _write(self) -> None:
        while True:
            await self._call.write(await self._unwritten.get())
            if self._unwritten.empty():
                self.written.set()

    async def _watch(self) -> None:
        """Leave a connection that takes no new calls: it is to be closed, and with it this stream."""
        await self._call.wait_for_connection()
        if self._state is State.CONNECTING:
            self._state = State.OPEN
        await self._channel.wait_for_state_change(READY)
        self._retire()

    def _take(self, answer: jobs_pb2.SubmitStreamResponse) -> None:
        waiting = self._answers.get(answer.number)
        if waiting is None:
            return  # its caller has given up
        if answer.HasField("refusal"):
            _settle(waiting, CallFailed(failures.read_refusal(answer.refusal, self._address)))
        else:
            _settle(waiting, answer.ids)

    def _retire(self) -> None:
        if self._state is not State.ENDED:
            self._state = State.RETIRED
            self.written.set()  # nobody need wait for it
            self._end_if_answered()

    def _end_if_answered(self) -> None:
        if self._state is State.RETIRED and not self._answers:
            self.end()


def _settle(waiting: "asyncio.Future[Sequence[int]]", answer: Sequence[int] | CallFailed) -> None:
    if waiting.done():
        return
    if isinstance(answer, CallFailed):
        waiting.set_exception(answer)
    else:
        waiting.set_result(answer)


def _no_answer(address: str, cause: str) -> Failure:
    status: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE
    refusal = jobs_pb2.Refusal(status=status.value[0], message=cause, stored=True)
    return failures.read_refusal(refusal, address)
