"""Streams of clients that submit: batches are read on while earlier ones are stored, and answered in order."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

import grpc

from orqestra.engine.intake import Intake
from orqestra.log import get_logger
from orqestra.model import limits
from orqestra.model.errors import MaybeStored, OrqestraError, Overloaded, StorageUnavailable, Unavailable
from orqestra.rpc.incoming import read_one, take_error
from orqestra.rpc.statuses import NOT_STORED, Context, status_of
from orqestra.rpc.submits import Request, Submits
from orqestra.v1 import jobs_pb2

# Of one stream, read and not answered: what a commit takes. What is beyond waits in the network, at the client.
UNANSWERED_BATCHES: Final = 16
UNANSWERED_BYTES: Final = limits.BATCH_BYTES

Answer = asyncio.Task[jobs_pb2.SubmitStreamResponse]

log = get_logger(__name__)


class SubmitStreams:
    """Serves SubmitStream. A stream that ends because the server stops has stored what it answered and no more."""

    def __init__(self, intake: Intake, submits: Submits) -> None:
        self._intake = intake
        self._submits = submits
        self._open: set[_Unanswered] = set()
        self._stopping = False

    async def serve(self, context: Context) -> None:
        """Serve one stream until its client ends it or the server stops."""
        unanswered = _Unanswered()
        self._open.add(unanswered)
        if self._stopping:
            unanswered.end()
        reader = asyncio.create_task(self._read(unanswered, context), name="read submits")
        # The read ends with the call; a read that is cancelled would leak (grpc#43360).
        reader.add_done_callback(take_error)
        try:
            while (answer := await unanswered.next()) is not None:
                await context.write(answer)
        finally:
            self._open.discard(unanswered)
            unanswered.end()
        if reader.done() and not reader.cancelled() and (fault := reader.exception()) is not None:
            raise fault
        if self._stopping:
            raise StorageUnavailable("the server is stopping; what it did not answer was not stored")

    def end(self) -> None:
        """Read no more; end every stream once what was read of it is answered."""
        self._stopping = True
        for unanswered in self._open:
            unanswered.end()

    async def _read(self, unanswered: "_Unanswered", context: Context) -> None:
        try:
            while await unanswered.room():
                message = await read_one(context)
                if message is None or unanswered.ended:
                    return
                request = self._submits.read(jobs_pb2.SubmitStreamRequest, message)
                unanswered.add(asyncio.create_task(self._submit(request)), len(message))
                del message, request  # not kept until the next one comes
        except (grpc.aio.UsageError, grpc.aio.InternalError, asyncio.CancelledError):
            log.debug("a stream of submits broke")
        finally:
            unanswered.end()

    async def _submit(self, request: Request) -> jobs_pb2.SubmitStreamResponse:
        number = request.jobs.number
        try:
            ids: Sequence[int] = await self._intake.submit(self._submits.check(request))
        except OrqestraError as error:
            return jobs_pb2.SubmitStreamResponse(number=number, refusal=_refusal(error))
        return jobs_pb2.SubmitStreamResponse(number=number, ids=ids)


class _Unanswered:
    """The batches of one stream that were read and are not answered, in order."""

    def __init__(self) -> None:
        self.ended = False
        self._answers: deque[tuple[Answer, int]] = deque()
        self._bytes = 0
        self._changed = asyncio.Event()

    def add(self, answer: Answer, size: int) -> None:
        """Queue a batch of that many bytes by what will be its answer."""
        self._answers.append((answer, size))
        self._bytes += size
        self._changed.set()

    def end(self) -> None:
        """Take no more batches."""
        self.ended = True
        self._changed.set()

    async def room(self) -> bool:
        """Wait until one more batch may be read; return False once none may."""
        while not self.ended and (len(self._answers) >= UNANSWERED_BATCHES or self._bytes >= UNANSWERED_BYTES):
            await self._change()
        return not self.ended

    async def next(self) -> jobs_pb2.SubmitStreamResponse | None:
        """Return the next answer, as soon as there is one; None once all are given and no more come."""
        while not self._answers:
            if self.ended:
                return None
            await self._change()
        answer = await self._answers[0][0]
        self._bytes -= self._answers.popleft()[1]
        self._changed.set()
        return answer

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


def _refusal(error: OrqestraError) -> jobs_pb2.Refusal:
    status: grpc.StatusCode = status_of(error)
    return jobs_pb2.Refusal(
        status=status.value[0],
        code=error.code,
        message=str(error),
        stored=isinstance(error, MaybeStored) or not isinstance(error, NOT_STORED),
        retry_after_ms=error.retry_after_ms if isinstance(error, Overloaded | Unavailable) else 0,
    )
