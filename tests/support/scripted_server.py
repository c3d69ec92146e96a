"""A gRPC server that answers as it is told: for faults that a real server shows only by accident.

It stands for the network and for servers in trouble, so that the client's own decisions can be tested.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from orqestra.v1 import jobs_pb2, jobs_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]
GUILTY = "guilty"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A call that ends with a status."""

    status: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE
    message: str = "away"
    trailers: tuple[tuple[str, str], ...] = ()


@dataclass(kw_only=True)
class ScriptedJobs(jobs_pb2_grpc.JobsServicer):
    """Faults first, in order, one a call; then jobs are stored in memory and get ids from 1 on."""

    faults: deque[Fault] = field(default_factory=deque)
    stored: list[jobs_pb2.JobSpec] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    """The number of jobs in each submit that reached the server."""
    streams: int = 0
    """The calls of SubmitStream."""
    answer: asyncio.Event = field(default_factory=asyncio.Event)
    """Calls wait for it; it is set at first."""
    called: asyncio.Event = field(default_factory=asyncio.Event)
    output: list[list[jobs_pb2.OutputChunk]] = field(default_factory=list)
    """What each call of GetOutput sends before its fault, if one is left."""
    asked: list[jobs_pb2.GetOutputRequest] = field(default_factory=list)
    """The calls of GetOutput."""
    watched: list[list[jobs_pb2.Job]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.answer.set()

    async def Submit(self, request: jobs_pb2.SubmitRequest, context: Context) -> jobs_pb2.SubmitResponse:
        await self._meet([request.job], context)
        return jobs_pb2.SubmitResponse(id=self._store(request.job))

    async def SubmitBatch(self, request: jobs_pb2.SubmitBatchRequest, context: Context) -> jobs_pb2.SubmitBatchResponse:
        await self._meet(list(request.jobs), context)
        return jobs_pb2.SubmitBatchResponse(ids=[self._store(job) for job in request.jobs])

    async def SubmitStream(
        self, requests: AsyncIterator[jobs_pb2.SubmitStreamRequest], context: Context
    ) -> AsyncIterator[jobs_pb2.SubmitStreamResponse]:
        self.streams += 1
        async for request in requests:
            if any(GUILTY in job.tags for job in request.jobs):
                refusal = jobs_pb2.Refusal(status=3, code="invalid_input", message="tags: guilty")
                yield jobs_pb2.SubmitStreamResponse(number=request.number, refusal=refusal)
                continue
            await self._meet(list(request.jobs), context)
            yield jobs_pb2.SubmitStreamResponse(number=request.number, ids=[self._store(job) for job in request.jobs])

    async def GetJob(self, request: jobs_pb2.GetJobRequest, context: Context) -> jobs_pb2.Job:
        await self._meet([], context)
        return jobs_pb2.Job(id=request.id, status=jobs_pb2.STATUS_PENDING)

    async def CancelJob(self, request: jobs_pb2.CancelJobRequest, context: Context) -> jobs_pb2.CancelJobResponse:
        await self._meet([], context)
        return jobs_pb2.CancelJobResponse()

    async def GetOutput(
        self, request: jobs_pb2.GetOutputRequest, context: Context
    ) -> AsyncIterator[jobs_pb2.OutputChunk]:
        self.asked.append(request)
        for chunk in self.output.pop(0):
            yield chunk
        await self._fail(context)

    async def WatchJob(self, request: jobs_pb2.WatchJobRequest, context: Context) -> AsyncIterator[jobs_pb2.Job]:
        for job in self.watched.pop(0):
            yield job
        await self._fail(context)

    async def _meet(self, jobs: list[jobs_pb2.JobSpec], context: Context) -> None:
        self.calls.append(len(jobs))
        self.called.set()
        await self.answer.wait()
        if any(GUILTY in job.tags for job in jobs):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "tags: guilty", (("orqestra-code", "invalid_input"),))
        await self._fail(context)

    async def _fail(self, context: Context) -> None:
        if self.faults:
            fault = self.faults.popleft()
            await context.abort(fault.status, fault.message, fault.trailers)

    def _store(self, job: jobs_pb2.JobSpec) -> int:
        self.stored.append(job)
        return len(self.stored)


@asynccontextmanager
async def serve(jobs: jobs_pb2_grpc.JobsServicer, **options: int) -> AsyncIterator[str]:
    """Yield the address of a server with this servicer, and options of gRPC by what follows `grpc.`."""
    server = grpc.aio.server(options=[(f"grpc.{name}", value) for name, value in options.items()])
    jobs_pb2_grpc.add_JobsServicer_to_server(jobs, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
