"""Batches in, receipts out, over one stream that is opened again when it breaks.

Three tasks share the work: one pulls the caller's batches, one writes, one reads the answers. At most
`WINDOW_BATCHES` are on their way, so a server that is slow slows down whoever feeds the stream.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

from grpc.aio import AioRpcError, StreamStreamCall

from orqestra.client import failures
from orqestra.client.encode import EncodedJob, JobEncoder, request_of
from orqestra.client.failures import Failure
from orqestra.client.patience import Caller, Deadline, may_repeat
from orqestra.client.submit_calls import SubmitCalls
from orqestra.client.values import Receipt
from orqestra.model.errors import InvalidInput, OrqestraError, Unavailable
from orqestra.model.job import JobSpec
from orqestra.v1 import jobs_pb2

# Enough that the server's group commit never waits for us, few enough to be sent again after a break.
WINDOW_BATCHES: Final = 8

Call = StreamStreamCall[bytes, jobs_pb2.SubmitStreamResponse]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Request:
    """A batch, encoded; with keys it may be sent twice."""

    number: int
    message: bytes
    has_keys: bool


async def submit_stream(
    calls: SubmitCalls, caller: Caller, encoder: JobEncoder, batches: AsyncIterable[Sequence[JobSpec]]
) -> AsyncIterator[Receipt]:
    """Yield one receipt for each batch, numbered from 1 in the order of `batches`."""
    stream = SubmitStream(calls, caller, encoder)
    tasks = (asyncio.create_task(stream.run()), asyncio.create_task(stream.pull(batches)))
    try:
        while (receipt := await stream.receipts.get()) is not None:
            yield receipt
        for task in tasks:
            await task  # raises what went wrong in it
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class SubmitStream:
    """The state of one submit stream, across the connections that it takes."""

    def __init__(self, calls: SubmitCalls, caller: Caller, encoder: JobEncoder) -> None:
        self.receipts: asyncio.Queue[Receipt | None] = asyncio.Queue()
        self._calls = calls
        self._encoder = encoder
        self._caller = caller
        self._window = asyncio.Semaphore(WINDOW_BATCHES)
        self._unwritten: asyncio.Queue[_Request | None] = asyncio.Queue()
        self._unanswered: dict[int, _Request] = {}
        self._open_batches = 0
        self._exhausted = False
        self._deadline = Deadline(caller.patience)

    async def pull(self, batches: AsyncIterable[Sequence[JobSpec]]) -> None:
        """Take the caller's batches, no faster than they are answered."""
        number = 0
        try:
            async for batch in batches:
                number += 1
                await self._window.acquire()
                self._open_batches += 1
                try:
                    jobs = [self._encoder.encode(spec) for spec in batch]
                except InvalidInput as error:
                    self._close(number, error=error)
                else:
                    self._unwritten.put_nowait(_request(number, jobs))
        finally:
            self._exhausted = True
            self._unwritten.put_nowait(None)  # only wakes the writer

    async def run(self) -> None:
        """Write and read until everything is answered; connections that break are replaced."""
        try:
            while failure := await self._connect():
                if not failure.passing:
                    raise failure.error
                self._close_unrepeatable(failure)
                await self._deadline.wait(failure)
        except OrqestraError as error:
            for number in tuple(self._unanswered):
                self._close(number, error=error)
            raise
        finally:
            self.receipts.put_nowait(None)  # the end

    async def _connect(self) -> Failure | None:
        """Use one connection until all is answered (None) or it breaks."""
        call: Call = self._calls.stream()
        writer = asyncio.create_task(self._write(call))
        try:
            async for answer in call:
                await self._settle(answer)
                await self._end_if_complete(call)
        except AioRpcError as failed:
            return failures.read(failed, self._caller.address)
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
            call.cancel()  # of no effect once it has ended
        return None if self._complete else _ended_early(self._caller.address)

    async def _write(self, call: Call) -> None:
        for request in tuple(self._unanswered.values()):
            await call.write(request.message)
        while True:
            await self._end_if_complete(call)
            request_or_wake = await self._unwritten.get()
            if request_or_wake is not None:
                self._unanswered[request_or_wake.number] = request_or_wake
                await call.write(request_or_wake.message)

    async def _settle(self, answer: jobs_pb2.SubmitStreamResponse) -> None:
        request = self._unanswered.get(answer.number)
        if request is None:
            return  # answered before, on the connection that broke
        if not answer.HasField("refusal"):
            self._deadline.restart()
            self._close(answer.number, ids=tuple(answer.ids))
            return
        failure = failures.read_refusal(answer.refusal, self._caller.address)
        try:
            if not may_repeat(failure, repeatable=request.has_keys):
                raise failure.error
            await self._deadline.wait(failure)
        except OrqestraError as error:
            self._close(answer.number, error=error)
        else:
            del self._unanswered[answer.number]
            self._unwritten.put_nowait(request)

    async def _end_if_complete(self, call: Call) -> None:
        if self._complete:
            await call.done_writing()

    @property
    def _complete(self) -> bool:
        return self._exhausted and not self._open_batches

    def _close_unrepeatable(self, failure: Failure) -> None:
        """Answer those that may not be sent again: jobs without a key, on a connection that broke."""
        for number, request in tuple(self._unanswered.items()):
            if not may_repeat(failure, repeatable=request.has_keys):
                self._close(number, error=failure.error)

    def _close(self, number: int, *, ids: tuple[int, ...] = (), error: OrqestraError | None = None) -> None:
        self._unanswered.pop(number, None)
        self._open_batches -= 1
        self._window.release()
        self.receipts.put_nowait(Receipt(number=number, ids=ids, error=error))


def _request(number: int, jobs: Sequence[EncodedJob]) -> _Request:
    head = jobs_pb2.SubmitStreamRequest(number=number).SerializeToString()
    return _Request(
        number=number,
        message=head + request_of(jobs_pb2.SubmitStreamRequest, jobs),
        has_keys=all(job.key is not None for job in jobs),
    )


def _ended_early(address: str) -> Failure:
    """Return what it means that a server ended the stream before it answered everything."""
    message = f"the server at {address} ended the stream before it answered everything"
    return Failure(error=Unavailable(message), passing=True, not_stored=False, retry_after_ms=0)
