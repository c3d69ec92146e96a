"""What clients ask for while a fault is on, and what they were told: the log of operations."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from orqestra.client import Client, JobSpec, new_key, shell_payload
from orqestra.model.errors import MaybeStored, OrqestraError
from orqestra.model.job import JobType
from tests.chaos.cluster import WORKFLOW, Cluster
from tests.chaos.evidence import Operation

# Enough that every loop of every process is busy at any moment, little enough for two cores.
JOBS_PER_SECOND = 60


class Clients:
    """Calls of the product's own client, each noted with its end."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.operations: list[Operation] = []
        self.noops: set[int] = set()
        """Jobs that do nothing: the journal does not know them."""

    async def submit(self, *work: str, **spec: Any) -> int:
        """Submit a probe that does `work`; return its id. What is not answered in the end raises."""
        return await self.submit_command(self._cluster.probe(*work), **spec)

    async def submit_command(self, command: list[str], **spec: Any) -> int:
        """Submit any command."""
        key = spec.pop("key", None) or new_key()
        invoked_at = time.monotonic()
        try:
            job_id = await self._cluster.client.submit(JobSpec(payload=shell_payload(command), key=key, **spec))
        except OrqestraError:
            # It has a key, so it may have been stored by one of the calls: nobody knows.
            self._note("submit", key, "info", None, invoked_at)
            raise
        self._note("submit", key, "ok", job_id, invoked_at)
        return job_id

    async def submit_noops(self, count: int, client: Client | None = None) -> list[int]:
        """Submit so many jobs that do nothing, all or none, by `client` if that is not the cluster's own."""
        invoked_at = time.monotonic()
        keys = [new_key() for _ in range(count)]
        try:
            ids = await (client or self._cluster.client).submit_many(
                JobSpec(type=JobType.NOOP, key=key) for key in keys
            )
        except OrqestraError:
            for key in keys:
                self._note("submit", key, "info", None, invoked_at)
            return []
        for key, job_id in zip(keys, ids, strict=True):
            self._note("submit", key, "ok", job_id, invoked_at)
        self.noops.update(ids)
        return list(ids)

    async def trigger(self) -> int:
        """Start a run of the workflow of probes; return its id."""
        key = new_key()
        invoked_at = time.monotonic()
        try:
            run = await self._cluster.client.workflows.trigger(WORKFLOW, key=key)
        except OrqestraError:
            self._note("trigger", key, "info", None, invoked_at)
            raise
        self.operations.append(
            Operation(
                kind="trigger",
                key=key,
                outcome="ok",
                job_id=None,
                run_id=run.id,
                invoked_at=invoked_at,
                answered_at=time.monotonic(),
            )
        )
        return run.id

    async def cancel(self, job_id: int) -> None:
        """Cancel a job, again and again until that is answered: doing it twice is harmless."""
        invoked_at = time.monotonic()
        while True:
            try:
                await self._cluster.client.cancel([job_id])
            except (OrqestraError, MaybeStored):
                await asyncio.sleep(0.1)
            else:
                self._note("cancel", "", "ok", job_id, invoked_at)
                return

    @asynccontextmanager
    async def background(self, jobs_per_second: float = JOBS_PER_SECOND) -> AsyncIterator[None]:
        """Submit short probes all the time, each by a call of its own."""
        calls: set[asyncio.Task[None]] = set()
        submitting = asyncio.create_task(self._submit_on(calls, 1 / jobs_per_second))
        try:
            yield
        finally:
            submitting.cancel()
            await asyncio.gather(submitting, *calls, return_exceptions=True)

    async def _submit_on(self, calls: set[asyncio.Task[None]], every_seconds: float) -> None:
        due = time.monotonic()
        for number in itertools.count():
            # Every other one is due a moment later, and so goes by way of Redis and a claim.
            call = asyncio.create_task(self._submit_one(delay_ms=number % 2))
            calls.add(call)
            call.add_done_callback(calls.discard)
            due += every_seconds
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _submit_one(self, delay_ms: int) -> None:
        try:
            await self.submit(delay_ms=delay_ms)
        except OrqestraError:
            return  # noted as indeterminate; the checker decides

    def _note(self, kind: Any, key: str, outcome: Any, job_id: int | None, invoked_at: float) -> None:
        self.operations.append(
            Operation(
                kind=kind,
                key=key,
                outcome=outcome,
                job_id=job_id,
                run_id=None,
                invoked_at=invoked_at,
                answered_at=time.monotonic(),
            )
        )
