"""The stream that submits share: how it is left, taken up again and given up, and what its callers notice."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from orqestra.client import Client, JobSpec, JobType, Patience
from orqestra.client.encode import JobEncoder, request_of
from orqestra.client.intake import WINDOW_BATCHES
from orqestra.client.submit_calls import SubmitCalls
from orqestra.client.submit_line import SubmitLine
from orqestra.model import limits
from orqestra.model.errors import Unavailable
from orqestra.v1 import jobs_pb2, jobs_pb2_grpc
from tests.support.scripted_server import ScriptedJobs, serve

KEYED = JobSpec(type=JobType.NOOP, key="a-key")
UNKEYED = JobSpec(type=JobType.NOOP)
SECONDS = 10.0


@dataclass(kw_only=True)
class HoldingJobs(jobs_pb2_grpc.JobsServicer):
    """Reads all there is, and answers it backwards once it is told to."""

    batches: list[int] = field(default_factory=list)
    """The number of jobs in each batch."""
    came: asyncio.Condition = field(default_factory=asyncio.Condition)
    answer: asyncio.Event = field(default_factory=asyncio.Event)

    async def SubmitStream(self, _requests: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        unanswered: asyncio.LifoQueue[jobs_pb2.SubmitStreamRequest] = asyncio.LifoQueue()
        reader = asyncio.create_task(self._read(unanswered, context))
        await self.answer.wait()
        while not reader.done():
            request = await unanswered.get()
            ids = [int(job.idempotency_key) for job in request.jobs]
            await context.write(jobs_pb2.SubmitStreamResponse(number=request.number, ids=ids))

    async def GetJob(self, request: jobs_pb2.GetJobRequest, _context: object) -> jobs_pb2.Job:
        return jobs_pb2.Job(id=request.id, status=jobs_pb2.STATUS_PENDING)

    async def until(self, batches: int) -> None:
        """Wait for so many batches."""
        async with asyncio.timeout(SECONDS), self.came:
            await self.came.wait_for(lambda: len(self.batches) >= batches)

    async def _read(self, unanswered: "asyncio.LifoQueue[jobs_pb2.SubmitStreamRequest]", context: Any) -> None:
        while (request := await context.read()) is not grpc.aio.EOF:
            unanswered.put_nowait(request)
            async with self.came:
                self.batches.append(len(request.jobs))
                self.came.notify_all()


async def submit(client: Client, name: int) -> int:
    return await client.submit(JobSpec(type=JobType.NOOP, key=str(name)))


async def test_submits_one_after_the_other_share_one_stream() -> None:
    jobs = ScriptedJobs()
    async with serve(jobs) as address, Client(address) as client:
        assert [await client.submit(UNKEYED) for _ in range(20)] == list(range(1, 21))
    assert (jobs.streams, jobs.calls) == (1, [1] * 20)


async def test_a_batch_does_not_wait_for_the_answer_to_the_one_before() -> None:
    jobs = HoldingJobs()
    async with serve(jobs) as address, Client(address) as client:
        callers = []
        for name in range(3):
            callers.append(asyncio.create_task(submit(client, name)))
            await jobs.until(name + 1)
        jobs.answer.set()
        assert await asyncio.gather(*callers) == [0, 1, 2]
    assert jobs.batches == [1, 1, 1]


async def test_no_more_batches_are_on_their_way_than_the_window_holds() -> None:
    jobs = HoldingJobs()
    names = range((WINDOW_BATCHES + 2) * limits.BATCH_JOBS)
    async with serve(jobs) as address, Client(address) as client:
        callers = asyncio.gather(*(submit(client, name) for name in names))
        await jobs.until(WINDOW_BATCHES)
        await client.get(1)  # on the same connection: what was written before it has come
        assert jobs.batches == [limits.BATCH_JOBS] * WINDOW_BATCHES
        jobs.answer.set()
        assert await callers == list(names)
    assert jobs.batches == [limits.BATCH_JOBS] * (WINDOW_BATCHES + 2)


async def test_a_batch_is_no_larger_than_a_commit() -> None:
    jobs = ScriptedJobs()
    payload = b'"' + b"x" * (limits.PAYLOAD_BYTES - 2) + b'"'
    async with serve(jobs, max_receive_message_length=limits.MESSAGE_BYTES) as address, Client(address) as client:
        await asyncio.gather(*(client.submit(JobSpec(type=JobType.NOOP, payload=payload)) for _ in range(10)))
    assert jobs.calls == [3, 3, 3, 1]


async def test_a_caller_that_is_cancelled_ends_nothing_but_its_own_call() -> None:
    jobs = HoldingJobs()
    async with serve(jobs) as address, Client(address) as client:
        callers = [asyncio.create_task(submit(client, name)) for name in range(3)]
        await jobs.until(1)
        callers[1].cancel()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await submit(client, 3)
        jobs.answer.set()
        answers = await asyncio.gather(*callers, return_exceptions=True)
        assert (answers[0], type(answers[1]), answers[2]) == (0, asyncio.CancelledError, 2)
        assert await submit(client, 4) == 4


async def test_a_client_that_is_closed_cancels_who_waits() -> None:
    jobs = HoldingJobs()
    async with serve(jobs) as address, asyncio.timeout(SECONDS):
        async with Client(address) as client:
            sent = asyncio.create_task(submit(client, 1))
            await jobs.until(1)
            waiting = [asyncio.create_task(submit(client, name)) for name in range(2, 5000)]
            await client.get(1)  # an answer comes long after all of them have begun to wait
        answers = await asyncio.gather(sent, *waiting, return_exceptions=True)
    assert {type(answer) for answer in answers} == {asyncio.CancelledError}


async def test_a_connection_that_reaches_its_age_costs_no_submit() -> None:
    """None of them has a key: what broke with its stream would be an error."""
    jobs = ScriptedJobs()
    ids = []
    ages = {"max_connection_age_ms": 100, "max_connection_age_grace_ms": 10_000}
    async with serve(jobs, **ages) as address, Client(address) as client, asyncio.timeout(SECONDS):
        while jobs.streams < 4:
            # Another call, so that the channel is connected again before the next submit looks at it.
            ids.append((await asyncio.gather(client.submit(UNKEYED), client.get(1)))[0])
    assert ids == list(range(1, len(ids) + 1))


async def test_a_stream_leaves_its_connection_once_the_channel_has_another() -> None:
    """Which the next submit can't see: to it the channel is as ready as before."""

    peers: set[str] = set()

    class Jobs(ScriptedJobs):
        async def GetJob(self, request: jobs_pb2.GetJobRequest, context: Any) -> jobs_pb2.Job:
            peers.add(context.peer())
            return await super().GetJob(request, context)

    jobs = Jobs()
    ages = {"max_connection_age_ms": 100, "max_connection_age_grace_ms": 10_000}
    async with serve(jobs, **ages) as address, Client(address) as client, asyncio.timeout(SECONDS):
        await client.submit(UNKEYED)
        while len(peers) < 2:
            await client.get(1)
        await client.submit(UNKEYED)
        assert jobs.streams == 2


async def test_a_connection_that_is_closed_at_once_costs_no_submit_with_a_key() -> None:
    jobs = ScriptedJobs()
    ages = {"max_connection_age_ms": 50, "max_connection_age_grace_ms": 1}
    async with serve(jobs, **ages) as address, Client(address) as client, asyncio.timeout(SECONDS):
        while jobs.streams < 4:
            await client.submit(KEYED)


async def test_a_stream_that_does_not_answer_in_time_is_left_for_another() -> None:
    jobs = ScriptedJobs()
    jobs.answer.clear()
    patience = Patience(call_seconds=0.1)
    async with serve(jobs) as address, Client(address, patience=patience) as client:
        with pytest.raises(Unavailable, match=r"no answer from the server at .*none within 0\.1 s"):
            await client.submit(UNKEYED)
        caller = asyncio.create_task(client.submit(KEYED))
        async with asyncio.timeout(SECONDS):
            while jobs.streams < 3:
                jobs.called.clear()
                await jobs.called.wait()
        jobs.answer.set()
        assert await caller


async def test_a_server_that_ends_the_stream_is_asked_again_for_jobs_with_a_key() -> None:
    class Curt(ScriptedJobs):
        async def SubmitStream(self, requests: Any, context: Any) -> AsyncIterator[jobs_pb2.SubmitStreamResponse]:
            if not self.streams:
                self.streams += 1
                await anext(requests)
                return
            async for answer in super().SubmitStream(requests, context):
                yield answer

    jobs = Curt()
    async with serve(jobs) as address, Client(address) as client:
        with pytest.raises(Unavailable, match="it ended the stream"):
            await client.submit(UNKEYED)
        jobs.streams = 0
        assert await client.submit(KEYED) == 1
    assert jobs.streams == 2


async def test_a_stream_that_was_idle_is_not_used_again() -> None:
    jobs = ScriptedJobs()
    message = request_of(jobs_pb2.SubmitStreamRequest, [JobEncoder().encode(UNKEYED)])
    async with serve(jobs) as address, grpc.aio.insecure_channel(address) as channel:
        line = SubmitLine(SubmitCalls(channel), address, idle_seconds=0)
        for job_id in range(1, 4):
            assert await line.submit(message, timeout=SECONDS) == [job_id]
        await line.close()
    assert jobs.streams == 3
