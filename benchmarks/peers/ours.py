"""Orqestra in the same round: its server, two workers and the client library, with the settings they come with."""

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg

from benchmarks.peers.contest import (
    PAYLOAD_BYTES,
    POLL_SECONDS,
    STALL_SECONDS,
    STOP_SECONDS,
    WARM_UP_JOBS,
    WORKERS,
    RoundFailed,
)
from benchmarks.peers.report import Figures
from orqestra.bench import load
from orqestra.client import Client, JobSpec, JobType
from orqestra.embedded.stack import Stack

# As many as the fastest peer gets: a run of less than a second says little.
JOBS: Final = 100_000
# About what the fastest peers take to a worker at once.
MANY_SLOTS: Final = 500
NOOP: Final = JobSpec(type=JobType.NOOP, payload=json.dumps({"data": "x" * PAYLOAD_BYTES}).encode())
ENDED: Final = (Path(__file__).parent / "ended.sql").read_text()


async def measure(slots: int | None = None) -> Figures:
    """Run one round on a new system; afterwards no process of it is left, whatever happens.

    Workers have as many slots as they have by default, or `slots`.
    """
    with tempfile.TemporaryDirectory(prefix="orqestra-peers-") as directory:
        async with Stack(Path(directory), workers=WORKERS, slots=slots) as stack, _round_on(stack) as ours:
            await ours.end_to_end(WARM_UP_JOBS)
            return Figures(seconds=await ours.end_to_end(JOBS), drain_seconds=await ours.drain(JOBS))


@dataclass(frozen=True, kw_only=True)
class Round:
    """A running system, a client of it, and a look into its database."""

    stack: Stack
    client: Client
    database: "asyncpg.Connection[asyncpg.Record]"

    async def end_to_end(self, jobs: int) -> float:
        """Return the seconds from the first submit to the last end, with workers that wait for jobs."""
        began_at = time.monotonic()
        await self._all_ended(await self._submit(jobs))
        return time.monotonic() - began_at

    async def drain(self, jobs: int) -> float:
        """Return the seconds from the first start to the last end of a backlog that workers meet as they start."""
        await asyncio.gather(*(self.stack.worker(index).stop(STOP_SECONDS) for index in range(WORKERS)))
        ids = await self._submit(jobs)
        await asyncio.gather(*(self.stack.start_worker(index) for index in range(WORKERS)))
        return await self._all_ended(ids)

    async def _submit(self, jobs: int) -> Sequence[int]:
        return await load.submit(self.client.submit_many, load.batches([NOOP], jobs))

    async def _all_ended(self, ids: Sequence[int]) -> float:
        """Wait until all jobs, the newest there are, have ended; return the seconds from the first start to it."""
        try:
            async with asyncio.timeout(STALL_SECONDS):
                # The last to start is among the last to end: until then nobody needs to look.
                async for _ in self.client.watch(ids[-1]):
                    pass
                [row] = await self.database.fetch(ENDED, ids[0])
                while row["unfinished"]:
                    await asyncio.sleep(POLL_SECONDS)
                    [row] = await self.database.fetch(ENDED, ids[0])
        except TimeoutError:
            raise RoundFailed(f"{len(ids)} jobs did not end within {STALL_SECONDS:.0f} s") from None
        if row["good"] != len(ids):
            raise RoundFailed(f"{row['good']} of {len(ids)} jobs were started once and completed")
        return float(row["seconds"])


@asynccontextmanager
async def _round_on(stack: Stack) -> AsyncIterator[Round]:
    database = await asyncpg.connect(stack.db_url)
    try:
        async with Client(stack.grpc_addr) as client:
            yield Round(stack=stack, client=client, database=database)
    finally:
        await database.close()
