"""The real server in the test's own loop, reached over gRPC and HTTP as by anybody else."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import asyncpg
import grpc

from orqestra.app import LEASE_TIMEOUT_SECONDS, Server
from orqestra.clock import SystemClock
from orqestra.settings import Settings
from orqestra.store.database import Database
from orqestra.v1 import jobs_pb2, jobs_pb2_grpc, workflows_pb2_grpc
from tests.support.raw_worker import RawWorker

WAIT_SECONDS = 15.0
# Room for the messages that a test makes too large on purpose: the server has to refuse them, not the client.
CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Two channels to one address would share a connection, and with it its fate.
    ("grpc.use_local_subchannel_pool", 1),
)
Sql: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
ENDED = frozenset({jobs_pb2.STATUS_COMPLETED, jobs_pb2.STATUS_FAILED, jobs_pb2.STATUS_CANCELLED})


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """How a call failed: its status, its message and its trailers."""

    status: grpc.StatusCode
    message: str
    trailers: Mapping[str, str]


class Caller:
    """A client of one server, without any patience of its own."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.channel = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        self.jobs: Any = jobs_pb2_grpc.JobsStub(self.channel)
        self.workflows: Any = workflows_pb2_grpc.WorkflowsStub(self.channel)

    async def submit(self, **spec: Any) -> int:
        """Submit one job, a `noop` unless told otherwise, and return its id."""
        request = jobs_pb2.SubmitRequest(job=noop(**spec))
        answer: jobs_pb2.SubmitResponse = await self.jobs.Submit(request)
        return answer.id

    async def submit_many(self, count: int, **spec: Any) -> list[int]:
        """Submit equal jobs as one batch and return their ids."""
        request = jobs_pb2.SubmitBatchRequest(jobs=[noop(**spec)] * count)
        answer: jobs_pb2.SubmitBatchResponse = await self.jobs.SubmitBatch(request)
        return list(answer.ids)

    async def job(self, job_id: int) -> jobs_pb2.Job:
        """Return a job with everything."""
        answer: jobs_pb2.Job = await self.jobs.GetJob(jobs_pb2.GetJobRequest(id=job_id))
        return answer

    async def cancel(self, *ids: int) -> list[jobs_pb2.CancelledJob]:
        """Cancel jobs and return what was found."""
        answer: jobs_pb2.CancelJobResponse = await self.jobs.CancelJob(jobs_pb2.CancelJobRequest(ids=ids))
        return list(answer.jobs)

    async def until(self, job_id: int, *statuses: jobs_pb2.Status) -> jobs_pb2.Job:
        """Watch a job until it has one of these states (any end, if none is named); return it whole."""
        async with asyncio.timeout(WAIT_SECONDS):
            call = self.jobs.WatchJob(jobs_pb2.WatchJobRequest(id=job_id))
            async for job in call:
                if job.status in (statuses or ENDED):
                    call.cancel()
                    return await self.job(job_id)
        raise AssertionError(f"job {job_id} ended without {statuses}: {await self.job(job_id)}")

    def worker(self, **about: Any) -> RawWorker:
        """Return a worker that is not connected yet."""
        return RawWorker(self.address, **about)


class RunningServer(Caller):
    """A server that serves, and a client of it."""

    def __init__(self, server: Server) -> None:
        super().__init__(f"127.0.0.1:{server.grpc_port}")
        self.server = server
        self.http = f"127.0.0.1:{server.http_port}"


def noop(**spec: Any) -> jobs_pb2.JobSpec:
    """Return a job that does nothing, with changes."""
    return jobs_pb2.JobSpec(**{"type": "noop", **spec})


def settings_for(database: str, redis_address: str, namespace: str, **environ: str) -> Settings:
    """Return the settings of a server for tests; further ones by the name of their variable."""
    return Settings.load(environment_for(database, redis_address, namespace, **environ), dotenv=None)


def environment_for(database: str, redis_address: str, namespace: str, **environ: str) -> dict[str, str]:
    """Return what a server for tests finds in its environment."""
    return {
        "DB_URL": database,
        "REDIS_ADDR": redis_address,
        "REDIS_QUEUE_NAME": namespace,
        "GRPC_ADDR": "127.0.0.1:0",
        "HTTP_ADDR": "127.0.0.1:0",
        "ORQESTRA_CONNECT_SECONDS": "1",
        **environ,
    }


@asynccontextmanager
async def running_server(settings: Settings) -> AsyncIterator[RunningServer]:
    """Start a server in this loop, yield it once it serves, and stop it as SIGTERM would."""
    database = await Database.connect(settings.db_url, connections=settings.db_connections)
    lease_database = await Database.connect(settings.db_url, connections=1, timeout_seconds=LEASE_TIMEOUT_SECONDS)
    server = Server(settings, SystemClock(), (database, lease_database))
    run = asyncio.create_task(server.run(), name="server")
    serving = asyncio.create_task(server.serving.wait())
    await asyncio.wait([run, serving], return_when=asyncio.FIRST_COMPLETED, timeout=WAIT_SECONDS)
    if not server.serving.is_set():
        serving.cancel()
        await run
    running = RunningServer(server)
    try:
        yield running
    finally:
        await running.channel.close()
        server.stop()
        async with asyncio.timeout(WAIT_SECONDS):
            await run


async def refusal(call: Any) -> Refusal:
    """Await a call that must fail and return how it did."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        trailers = {key: value for key, value in error.trailing_metadata() or () if isinstance(value, str)}
        return Refusal(status=error.code(), message=error.details() or "", trailers=trailers)
    raise AssertionError(f"was not refused but answered {answer}")
