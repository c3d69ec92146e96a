"""Batches in, receipts out, over one stream that is opened again when it breaks.

Three tasks share the work: one pulls the caller's batches, one writes, one reads the answers. At most
`WINDOW_BATCHES` are on their way, so a server that is slow slows down whoever feeds the stream.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from typing import Final

from grpc.aio import AioRpcError, StreamStreamCall

from orqestra.client import failures
from orqestra.client.encode import encode_job
from orqestra.client.failures import Failure
from orqestra.client.patience import Caller, Deadline, may_repeat
from orqestra.client.values import Receipt
from orqestra.model.errors import InvalidInput, OrqestraError, Unavailable
from orqestra.model.job import JobSpec
from orqestra.v1 import jobs_pb2
from orqestra.v1.jobs_pb2_grpc import JobsStub

# Enough that the server's group commit never waits for us, few enough to be sent again after a break.
WINDOW_BATCHES: Final = 8

Call = StreamStreamCall[jobs_pb2.SubmitStreamRequest, jobs_pb2.SubmitStreamResponse]


async def submit_stream(
    stub: JobsStub, caller: Caller, batches: AsyncIterable[Sequence[JobSpec]]
) -> AsyncIterator[Receipt]:
    """Yield one receipt for each batch, numbered from 1 in the order of `batches`."""
    stream = SubmitStream(stub, caller)
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

    def __init__(self, stub: JobsStub, caller: Caller) -> None:
        self.receipts: asyncio.Queue[Receipt | None] = asyncio.Queue()
        self._stub = stub
        self._caller = caller
        self._window = asyncio.Semaphore(WINDOW_BATCHES)
        self._unwritten: asyncio.Queue[jobs_pb2.SubmitStreamRequest | None] = asyncio.Queue()
        self._unanswered: dict[int, jobs_pb2.SubmitStreamRequest] = {}
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
                    jobs = [encode_job(spec) for spec in batch]
                except InvalidInput as error:
                    self._close(number, error=error)
                else:
                    self._unwritten.put_nowait(jobs_pb2.SubmitStreamRequest(number=number, jobs=jobs))
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
        call: Call = self._stub.SubmitStream()
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
            await call.write(request)
        while True:
            await self._end_if_complete(call)
            request_or_wake = await self._unwritten.get()
            if request_or_wake is not None:
                self._unanswered[request_or_wake.number] = request_or_wake
                await call.write(request_or_wake)

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
            if not may_repeat(failure, repeatable=_has_keys(request)):
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
            if not may_repeat(failure, repeatable=_has_keys(request)):
                self._close(number, error=failure.error)

    def _close(self, number: int, *, ids: tuple[int, ...] = (), error: OrqestraError | None = None) -> None:
        self._unanswered.pop(number, None)
        self._open_batches -= 1
        self._window.release()
        self.receipts.put_nowait(Receipt(number=number, ids=ids, error=error))


def _has_keys(request: jobs_pb2.SubmitStreamRequest) -> bool:
    return all(job.idempotency_key for job in request.jobs)


def _ended_early(address: str) -> Failure:
    """Return what it means that a server ended the stream before it answered everything."""
    message = f"the server at {address} ended the stream before it answered everything"
    return Failure(error=Unavailable(message), passing=True, not_stored=False, retry_after_ms=0)
