"""Server streams that outlive a broken connection: they are asked for again and go on where they were."""

from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from grpc.aio import AioRpcError, UnaryStreamCall

from orqestra.client import decode, failures
from orqestra.client.patience import Caller, Deadline, may_repeat
from orqestra.client.values import Chunk, Job, OutputStream
from orqestra.v1 import jobs_pb2
from orqestra.v1.jobs_pb2_grpc import JobsStub

Message = TypeVar("Message")


async def watch(stub: JobsStub, caller: Caller, job_id: int) -> AsyncIterator[Job]:
    """Yield the job now and after each change of state, until it has ended."""
    last: tuple[object, ...] | None = None
    request = jobs_pb2.WatchJobRequest(id=job_id)
    async for message in _messages(caller, lambda: stub.WatchJob(request)):
        job = decode.job(message)
        stand = (job.status, job.fence, job.available_at, job.cancel_requested)
        if stand == last:
            continue  # the first message of a stream that was asked for again
        last = stand
        yield job
        if job.ended:
            return


async def output(stub: JobsStub, caller: Caller, request: jobs_pb2.GetOutputRequest) -> AsyncIterator[Chunk]:
    """Yield the output in the order of the offsets, each byte once."""
    resumed = jobs_pb2.GetOutputRequest()
    resumed.CopyFrom(request)
    seen: dict[tuple[int, OutputStream], int] = {}
    async for message in _messages(caller, lambda: stub.GetOutput(resumed)):
        chunk = decode.chunk(message)
        if chunk.fence > resumed.fence:
            resumed.fence = chunk.fence
            resumed.stdout_offset = resumed.stderr_offset = 0
        fresh = _after(chunk, seen.get((chunk.fence, chunk.stream), 0))
        if fresh is not None:
            end = seen[chunk.fence, chunk.stream] = fresh.offset + len(fresh.data)
            # A server that does not know the offsets sends all again, and that is left out here.
            if chunk.stream is OutputStream.STDOUT:
                resumed.stdout_offset = end
            else:
                resumed.stderr_offset = end
            yield fresh


async def _messages(
    caller: Caller, open_stream: Callable[[], UnaryStreamCall[object, Message]]
) -> AsyncIterator[Message]:
    """Yield the messages of a stream; when it breaks, those of the next, until patience ends."""
    deadline = Deadline(caller.patience)
    while True:
        call = open_stream()
        try:
            # A server that has taken the call says so at once, however long it then has nothing to tell.
            await call.initial_metadata()
            if not call.done():
                deadline.restart()
            async for message in call:
                deadline.restart()
                yield message
        except AioRpcError as failed:
            failure = failures.read(failed, caller.address)
            if not may_repeat(failure, repeatable=True):
                raise failure.error from failed
        else:
            return
        finally:
            call.cancel()  # of no effect once it has ended
        await deadline.wait(failure)


def _after(chunk: Chunk, position: int) -> Chunk | None:
    """Return what of `chunk` lies at `position` and beyond, None if nothing does."""
    known = position - chunk.offset
    if known <= 0:
        return chunk
    if known >= len(chunk.data):
        return None
    return Chunk(fence=chunk.fence, stream=chunk.stream, offset=position, data=chunk.data[known:])
