"""Submits that wait together travel together: a message costs much, a further job in it little."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from orqestra.client.encode import EncodedJob, request_of
from orqestra.client.patience import Caller
from orqestra.client.submit_calls import SubmitCalls
from orqestra.client.submit_line import SubmitLine
from orqestra.model import limits
from orqestra.model.errors import InvalidInput, OrqestraError
from orqestra.v1 import jobs_pb2

# Enough that the server always has a batch to store next; more would only make the batches smaller.
WINDOW_BATCHES: Final = 4
SINGLE: Final = 1
# Who submits one job knows of no batch.
OF_SINGLE: Final = "jobs[0]."


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A job whose submitter waits for the id."""

    job: EncodedJob
    id: asyncio.Future[int]


class Intake:
    """Takes jobs one by one and sends them in batches, without delay.

    Jobs with a key and jobs without go in batches of their own, for only the former may be repeated.
    """

    def __init__(self, calls: SubmitCalls, caller: Caller) -> None:
        self._calls = calls
        self._caller = caller
        self._line = SubmitLine(calls, caller.address)
        self._batches = {has_key: Batches(self._line, caller, repeatable=has_key) for has_key in (True, False)}

    async def submit(self, job: EncodedJob) -> int:
        """Return the id of the stored job."""
        return await self._batches[job.key is not None].submit(job)

    async def submit_batch(self, jobs: Sequence[EncodedJob]) -> Sequence[int]:
        """Store all or none; return the ids in order."""
        answer = await self._caller.call(
            self._calls.batch,
            request_of(jobs_pb2.SubmitBatchRequest, jobs),
            repeatable=all(job.key is not None for job in jobs),
        )
        return answer.ids

    async def close(self) -> None:
        """Stop sending; who still waits is cancelled."""
        for batches in self._batches.values():
            await batches.close()
        await self._line.close()


class Batches:
    """What was submitted while a write was under way, or while the window was full, is the next batch.

    A batch that the server refuses is halved until only the guilty jobs are refused.
    """

    def __init__(self, line: SubmitLine, caller: Caller, *, repeatable: bool) -> None:
        self._line = line
        self._caller = caller
        self._repeatable = repeatable
        self._waiting: list[Waiting] = []
        self._window = asyncio.Semaphore(WINDOW_BATCHES)
        self._former: asyncio.Task[None] | None = None
        self._sent: set[asyncio.Task[None]] = set()

    async def submit(self, job: EncodedJob) -> int:
        """Return the id of the stored job."""
        waiting = Waiting(job=job, id=asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._former is None or self._former.done():
            self._former = asyncio.create_task(self._form(), name="orqestra-intake")
        return await waiting.id

    async def close(self) -> None:
        """Stop sending; who still waits is cancelled."""
        tasks = [*self._sent, *([self._former] if self._former else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for waiting in self._waiting:
            waiting.id.cancel()

    async def _form(self) -> None:
        while self._waiting:
            await self._window.acquire()
            await self._line.written()
            batch = _take(self._waiting)
            sent = asyncio.create_task(self._send(batch), name="orqestra-intake-batch")
            self._sent.add(sent)
            sent.add_done_callback(partial(self._end, batch))

    def _end(self, batch: list[Waiting], sent: asyncio.Task[None]) -> None:
        self._sent.discard(sent)
        self._window.release()
        for each in batch:
            each.id.cancel()  # no effect on those that are answered

    async def _send(self, batch: list[Waiting]) -> None:
        """Answer everyone in the batch, with an id or an error."""
        batch = [each for each in batch if not each.id.done()]
        if not batch:
            return
        jobs = request_of(jobs_pb2.SubmitStreamRequest, [each.job for each in batch])
        try:
            ids = await self._caller.call(self._line.submit, jobs, repeatable=self._repeatable)
        except InvalidInput as error:
            if len(batch) == SINGLE:
                _answer(batch[0], InvalidInput(error.field.removeprefix(OF_SINGLE), error.problem))
                return
            middle = len(batch) // 2
            await self._send(batch[:middle])
            await self._send(batch[middle:])
        except OrqestraError as error:
            for each in batch:
                _answer(each, error)
        else:
            for each, job_id in zip(batch, ids, strict=True):
                _answer(each, job_id)


def _take(waiting: list[Waiting]) -> list[Waiting]:
    """Remove and return the jobs of the next batch, at least one."""
    size = count = 0
    for each in waiting[: limits.BATCH_JOBS]:
        size += each.job.bytes
        if count and size > limits.BATCH_BYTES:
            break
        count += 1
    batch = waiting[:count]
    del waiting[:count]
    return batch


def _answer(waiting: Waiting, answer: int | OrqestraError) -> None:
    if waiting.id.done():  # its submitter was cancelled
        return
    if isinstance(answer, OrqestraError):
        waiting.id.set_exception(answer)
    else:
        waiting.id.set_result(answer)
