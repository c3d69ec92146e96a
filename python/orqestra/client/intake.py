"""Submits that wait together travel together: a message costs much, a further job in it little."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from orqestra.client.encode import EncodedJob, request_of
from orqestra.client.patience import Caller
from orqestra.client.submit_calls import SubmitCalls
from orqestra.model import limits
from orqestra.model.errors import InvalidInput, OrqestraError
from orqestra.v1 import jobs_pb2

SINGLE: Final = 1


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A job whose submitter waits for the id."""

    job: EncodedJob
    id: asyncio.Future[int]


class Intake:
    """Sends one batch after the other: whatever was submitted while the batch before was on its way.

    Jobs with a key and jobs without go in batches of their own, for only the former may be repeated. A
    batch that the server refuses is halved until only the guilty jobs are refused.
    """

    def __init__(self, calls: SubmitCalls, caller: Caller) -> None:
        self._calls = calls
        self._caller = caller
        self._waiting: dict[bool, list[Waiting]] = {True: [], False: []}
        self._senders: dict[bool, asyncio.Task[None]] = {}

    async def submit(self, job: EncodedJob) -> int:
        """Return the id of the stored job."""
        has_key = job.key is not None
        waiting = Waiting(job=job, id=asyncio.get_running_loop().create_future())
        self._waiting[has_key].append(waiting)
        sender = self._senders.get(has_key)
        if sender is None or sender.done():
            self._senders[has_key] = asyncio.create_task(self._send_all(has_key), name="orqestra-intake")
        return await waiting.id

    async def close(self) -> None:
        """Stop sending; who still waits is cancelled."""
        for sender in self._senders.values():
            sender.cancel()
        await asyncio.gather(*self._senders.values(), return_exceptions=True)
        for waiting in (*self._waiting[True], *self._waiting[False]):
            waiting.id.cancel()

    async def submit_batch(self, jobs: Sequence[EncodedJob]) -> list[int]:
        """Store all or none; return the ids in order."""
        answer = await self._caller.call(
            self._calls.batch,
            request_of(jobs_pb2.SubmitBatchRequest, jobs),
            repeatable=all(job.key is not None for job in jobs),
        )
        return list(answer.ids)

    async def _send_all(self, has_key: bool) -> None:
        waiting = self._waiting[has_key]
        while waiting:
            batch = _take(waiting)
            try:
                await self._send([each for each in batch if not each.id.done()])
            finally:
                for each in batch:
                    each.id.cancel()  # no effect on those that are answered

    async def _send(self, batch: list[Waiting]) -> None:
        """Answer everyone in the batch, with an id or an error."""
        if not batch:
            return
        try:
            ids = await self._submit([each.job for each in batch])
        except InvalidInput as error:
            if len(batch) == SINGLE:
                _answer(batch[0], error)
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

    async def _submit(self, jobs: list[EncodedJob]) -> list[int]:
        if len(jobs) > SINGLE:
            return await self.submit_batch(jobs)
        answer = await self._caller.call(
            self._calls.single,
            request_of(jobs_pb2.SubmitRequest, jobs),
            repeatable=jobs[0].key is not None,
        )
        return [answer.id]


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
