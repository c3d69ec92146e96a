"""A whole system of real processes: a stack, a client of it, and a journal of what its commands did."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from orqestra.client import Client, Job, JobSpec, new_key, shell_payload
from orqestra.embedded.stack import Stack
from orqestra.model.lifecycle import State
from tests.support.journal import Journal
from tests.support.processes import processes_of
from tests.support.transitions import job_trigger, run_trigger

END_SECONDS = 45.0


@dataclass(frozen=True, kw_only=True)
class System:
    """A running stack, whose database refuses every step that the lifecycle does not have."""

    folder: Path
    stack: Stack
    client: Client
    journal: Journal

    async def submit(self, command: str | list[str], **spec: Any) -> int:
        """Submit a command, patiently; return its id."""
        return await self.client.submit(shell(command, **spec))

    async def run(self, command: str | list[str], **spec: Any) -> Job:
        """Submit a command; return the job once it has ended."""
        return await self.ended(await self.submit(command, **spec))

    async def ended(self, job_id: int) -> Job:
        """Return the job, with its output, once it has ended."""
        async with asyncio.timeout(END_SECONDS):
            async for _ in self.client.watch(job_id):
                pass
            return await self.client.get(job_id)

    async def all_ended(self, job_ids: Iterable[int]) -> list[Job]:
        """Return the jobs once all have ended."""
        return await asyncio.gather(*map(self.ended, job_ids))

    async def running(self, job_id: int) -> Job:
        """Return the job once it runs."""
        async with asyncio.timeout(END_SECONDS):
            async for job in self.client.watch(job_id):
                if job.status is State.RUNNING:
                    return job
        raise AssertionError(f"job {job_id} ended without having been seen running")


def shell(command: str | list[str], **spec: Any) -> JobSpec:
    """Return a job that runs a command and has a key, so that its submit may be repeated."""
    return JobSpec(payload=shell_payload(command), key=new_key(), **spec)


@asynccontextmanager
async def running_system(**settings: Any) -> AsyncIterator[System]:
    """Start a stack in a folder of its own; afterwards no process of it is left."""
    with tempfile.TemporaryDirectory(prefix="orqestra-system-") as directory:
        folder = Path(directory)
        # Every command gets it: that is how one that is left over is found.
        variables = {"TMPDIR": directory, **settings.pop("settings", {})}
        async with (
            Stack(folder / "data", durable=False, settings=variables, **settings) as stack,
            Client(stack.grpc_addr) as client,
        ):
            await _watch_transitions(stack.db_url)
            yield System(folder=folder, stack=stack, client=client, journal=Journal(folder / "journal"))
        assert processes_of(directory) == []


async def _watch_transitions(db_url: str) -> None:
    connection = await asyncpg.connect(db_url)
    try:
        await connection.execute(job_trigger() + run_trigger())
    finally:
        await connection.close()
