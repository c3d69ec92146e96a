"""The client of a server: every call that programs make, and the promise of each."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from types import TracebackType
from typing import Final, Self

import grpc.aio

from orqestra.client import decode, following
from orqestra.client.encode import JobEncoder
from orqestra.client.intake import Intake
from orqestra.client.patience import Caller, Patience
from orqestra.client.selection import JobFilter, checked_id
from orqestra.client.submit_calls import SubmitCalls
from orqestra.client.submit_stream import submit_stream
from orqestra.client.values import Cancelled, Chunk, Job, JobPage, Receipt, Worker
from orqestra.client.workflows import Workflows
from orqestra.flow_control import FLOW_CONTROL
from orqestra.model import limits
from orqestra.model.errors import InvalidInput
from orqestra.model.job import JobSpec
from orqestra.v1 import jobs_pb2
from orqestra.v1.jobs_pb2_grpc import JobsStub

RECONNECT_FIRST_MS: Final = 100
RECONNECT_LAST_MS: Final = 500

OPTIONS: Final = (
    ("grpc.max_send_message_length", limits.MESSAGE_BYTES),
    ("grpc.max_receive_message_length", limits.MESSAGE_BYTES),
    *FLOW_CONTROL,
    # A lost host is noticed within 15 s. The server allows pings from 5 s on.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    # gRPC's own pace (1 s, then slower) would make each restart of a server felt.
    ("grpc.initial_reconnect_backoff_ms", RECONNECT_FIRST_MS),
    ("grpc.min_reconnect_backoff_ms", RECONNECT_FIRST_MS),
    ("grpc.max_reconnect_backoff_ms", RECONNECT_LAST_MS),
    # The proxy that http_proxy names is for the web.
    ("grpc.enable_http_proxy", 0),
)


class Client:
    """A connection to the server at `address` (HOST:PORT), for one event loop.

        async with Client("localhost:50051") as client:
            job_id = await client.submit(JobSpec(payload=shell_payload("echo hello"), key=new_key()))
            async for job in client.watch(job_id): ...

    Every call raises the errors of `orqestra.model.errors`: `Unavailable` when no server answers,
    `NotFound`, `InvalidInput`, `Refused`, `Overloaded`. Reads, and submits whose jobs carry keys, are
    repeated by themselves while that can help, for `patience.total_seconds` at most; anything else only
    if the server says that nothing was stored. `workflows` holds the calls about workflows.
    """

    def __init__(self, address: str, *, patience: Patience | None = None) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=OPTIONS)
        self._stub = JobsStub(self._channel)
        self._caller = Caller(address, patience or Patience())
        self._encoder = JobEncoder()
        self._submits = SubmitCalls(self._channel)
        self._intake = Intake(self._submits, self._caller)
        self.workflows = Workflows(self._channel, self._caller)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connection. Calls still under way are cancelled."""
        await self._intake.close()
        await self._channel.close()

    async def submit(self, spec: JobSpec) -> int:
        """Store a job; return its id after the commit. A key that is known already answers the first id.

        Submits that run at the same time travel together, and none waits for a batch to fill. Raises MaybeStored
        (only without a key) if the commit's end is not known.
        """
        return await self._intake.submit(self._encoder.encode(spec))

    async def submit_many(self, specs: Iterable[JobSpec]) -> tuple[int, ...]:
        """Store up to 10,000 jobs, all or none; return their ids in order.

        Raises InvalidInput with the index of the job that is refused.
        """
        jobs = self._encoder.encode_all(specs)
        if len(jobs) > limits.SUBMIT_JOBS:
            raise InvalidInput("jobs", f"{len(jobs)} jobs; at most {limits.SUBMIT_JOBS} are allowed")
        return tuple(await self._intake.submit_batch(jobs)) if jobs else ()

    def submit_stream(self, batches: AsyncIterable[Sequence[JobSpec]]) -> AsyncIterator[Receipt]:
        """Store batch after batch over one stream; yield a receipt for each, in the order of the answers.

        Each batch is stored wholly or not at all. One that is refused has its error in its receipt, and
        the others go on. Raises Unavailable when no server answers any more.
        """
        return submit_stream(self._submits, self._caller, self._encoder, batches)

    async def get(self, job_id: int, *, with_output: bool = True) -> Job:
        """Return the job with its attempts."""
        request = jobs_pb2.GetJobRequest(id=checked_id("id", job_id), without_output=not with_output)
        return decode.job(await self._caller.call(self._stub.GetJob, request, repeatable=True))

    async def list(
        self, where: JobFilter | None = None, *, limit: int | None = None, after: int | None = None
    ) -> JobPage:
        """Return one page of jobs, newest first, without payload, output and attempts.

        `after` is the `next` of the page before. A page may be short, even empty, and have a next one.
        """
        request = (where or JobFilter()).request(limit=limit, after=after)
        return decode.job_page(await self._caller.call(self._stub.ListJobs, request, repeatable=True))

    async def cancel(self, job_ids: Sequence[int]) -> tuple[Cancelled, ...]:
        """Cancel jobs; return what that did to each, in order. A running one ends a little later."""
        request = jobs_pb2.CancelJobRequest(ids=[checked_id("id", job_id) for job_id in job_ids])
        answer = await self._caller.call(self._stub.CancelJob, request, repeatable=False)
        return tuple(decode.cancelled(each) for each in answer.jobs)

    async def retry(self, job_id: int) -> Job:
        """Put a failed or cancelled job back to pending with a new budget of retries.

        Raises Refused in any other state.
        """
        request = jobs_pb2.RetryJobRequest(id=checked_id("id", job_id))
        return decode.job(await self._caller.call(self._stub.RetryJob, request, repeatable=False))

    def watch(self, job_id: int) -> AsyncIterator[Job]:
        """Yield the job now and after each change of state; end after a terminal one."""
        return following.watch(self._stub, self._caller, checked_id("id", job_id))

    def output(self, job_id: int, *, fence: int | None = None, follow: bool = False) -> AsyncIterator[Chunk]:
        """Yield the output of the attempt `fence`, by default the latest, each byte once.

        With `follow`, go on until the job ends, attempt after attempt. A gap between the offsets of a
        stream's chunks means that the middle of its output was not kept.
        """
        request = jobs_pb2.GetOutputRequest(id=checked_id("id", job_id), fence=fence, follow=follow)
        return following.output(self._stub, self._caller, request)

    async def workers(self) -> tuple[Worker, ...]:
        """Return the workers that are connected now."""
        request = jobs_pb2.ListWorkersRequest()
        answer = await self._caller.call(self._stub.ListWorkers, request, repeatable=True)
        return tuple(decode.worker(each) for each in answer.workers)
