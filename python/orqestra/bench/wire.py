"""The calls of a load, as cheap as a client can make them: ready-made bytes go out, messages come back.

Whoever measures shares the CPUs with what is measured. The client library checks and encodes each job by
itself, which here would be the same work for the same bytes many thousand times.
"""

from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Final, Self

import grpc.aio

from orqestra.client import JobSpec, failures
from orqestra.client.client import OPTIONS
from orqestra.client.encode import JobEncoder, request_of
from orqestra.model import limits
from orqestra.v1 import jobs_pb2
from orqestra.v1.jobs_pb2_grpc import JobsStub

Submit = grpc.aio.UnaryUnaryMultiCallable[bytes, jobs_pb2.SubmitBatchResponse]

SUBMIT_BATCH: Final = "/orqestra.v1.Jobs/SubmitBatch"


def entry(spec: JobSpec) -> bytes:
    """Return a job as it stands in a batch: batches are entries one after the other."""
    return request_of(jobs_pb2.SubmitBatchRequest, [JobEncoder().encode(spec)])


class Wire:
    """A connection of its own to the server at `address`. Calls raise what those of `Client` raise."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._channel = grpc.aio.insecure_channel(address, options=OPTIONS)
        self._list = JobsStub(self._channel).ListJobs
        self._submit: Submit = self._channel.unary_unary(
            SUBMIT_BATCH, response_deserializer=jobs_pb2.SubmitBatchResponse.FromString
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close()

    async def submit(self, batch: bytes) -> Sequence[int]:
        """Store a batch; return the ids in order after the commit."""
        try:
            answer: jobs_pb2.SubmitBatchResponse = await self._submit(batch)
        except grpc.aio.AioRpcError as failed:
            raise failures.read(failed, self._address).error from None
        return answer.ids

    async def jobs(self, tag: str, first: int, last: int) -> AsyncIterator[Sequence[jobs_pb2.Job]]:
        """Yield the jobs that bear a tag, from the id `last` down to `first`, page after page."""
        after = last + 1
        while after > first:
            request = jobs_pb2.ListJobsRequest(tags=[tag], limit=limits.PAGE_JOBS, after=after)
            try:
                page: jobs_pb2.ListJobsResponse = await self._list(request)
            except grpc.aio.AioRpcError as failed:
                raise failures.read(failed, self._address).error from None
            yield page.jobs
            after = page.next
