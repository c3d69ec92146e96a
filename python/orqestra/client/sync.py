"""The same client for programs without an event loop."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self, TypeVar

from orqestra.client.client import Client
from orqestra.client.patience import Patience
from orqestra.client.selection import JobFilter, RunFilter
from orqestra.client.values import Cancelled, Chunk, Job, JobPage, Run, RunPage, Worker, WorkflowList
from orqestra.model.job import JobSpec

Item = TypeVar("Item")


class SyncClient:
    """`Client` with plain calls, for scripts; promises and errors are the same. For one thread.

    with SyncClient("localhost:50051") as client:
        job = client.wait(client.submit(JobSpec(payload=shell_payload("make all"), key=new_key())))
    """

    def __init__(self, address: str, *, patience: Patience | None = None) -> None:
        self._runner = asyncio.Runner()
        self._client = self._runner.run(_connect(address, patience))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._runner.run(self._client.close())
        self._runner.close()

    def submit(self, spec: JobSpec) -> int:
        """See `Client.submit`."""
        return self._runner.run(self._client.submit(spec))

    def submit_many(self, specs: Iterable[JobSpec]) -> tuple[int, ...]:
        """See `Client.submit_many`."""
        return self._runner.run(self._client.submit_many(specs))

    def get(self, job_id: int) -> Job:
        """See `Client.get`."""
        return self._runner.run(self._client.get(job_id))

    def wait(self, job_id: int) -> Job:
        """Return the job, with its output, once it has ended."""
        for _ in self.watch(job_id):
            pass
        return self.get(job_id)

    def jobs(self, where: JobFilter | None = None, *, limit: int | None = None, after: int | None = None) -> JobPage:
        """See `Client.list`."""
        return self._runner.run(self._client.list(where, limit=limit, after=after))

    def cancel(self, job_ids: Sequence[int]) -> tuple[Cancelled, ...]:
        """See `Client.cancel`."""
        return self._runner.run(self._client.cancel(job_ids))

    def retry(self, job_id: int) -> Job:
        """See `Client.retry`."""
        return self._runner.run(self._client.retry(job_id))

    def watch(self, job_id: int) -> Iterator[Job]:
        """See `Client.watch`."""
        return self._each(self._client.watch(job_id))

    def output(self, job_id: int, *, fence: int | None = None, follow: bool = False) -> Iterator[Chunk]:
        """See `Client.output`."""
        return self._each(self._client.output(job_id, fence=fence, follow=follow))

    def workers(self) -> tuple[Worker, ...]:
        """See `Client.workers`."""
        return self._runner.run(self._client.workers())

    def workflows(self) -> WorkflowList:
        """See `Workflows.list`."""
        return self._runner.run(self._client.workflows.list())

    def trigger(self, workflow: str, *, key: str = "") -> Run:
        """See `Workflows.trigger`."""
        return self._runner.run(self._client.workflows.trigger(workflow, key=key))

    def run(self, run_id: int) -> Run:
        """See `Workflows.run`."""
        return self._runner.run(self._client.workflows.run(run_id))

    def runs(self, where: RunFilter | None = None, *, limit: int | None = None, after: int | None = None) -> RunPage:
        """See `Workflows.runs`."""
        return self._runner.run(self._client.workflows.runs(where, limit=limit, after=after))

    def cancel_run(self, run_id: int) -> Run:
        """See `Workflows.cancel`."""
        return self._runner.run(self._client.workflows.cancel(run_id))

    def _each(self, items: AsyncIterator[Item]) -> Iterator[Item]:
        while (item := self._runner.run(_next(items))) is not None:
            yield item


async def _connect(address: str, patience: Patience | None) -> Client:
    """Make the client inside the loop that it belongs to."""
    return Client(address, patience=patience)


async def _next(items: AsyncIterator[Item]) -> Item | None:
    return await anext(items, None)
