"""A system to load: Postgres, Redis, a server and two workers, as the processes they always are."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from benchmarks.flat.report import Round
from orqestra.bench import load, processes
from orqestra.bench.cycle import PAYLOAD
from orqestra.bench.processes import Accounts, Root, look, usages
from orqestra.bench.progress import Unseen
from orqestra.client import Client, JobSpec
from orqestra.embedded.stack import Stack

WORKERS = 2
NOOP = JobSpec(type="noop", payload=PAYLOAD, tags=(load.TAG,))
STOP_SECONDS = 6.0
# The part of a round's jobs up to which old pages count as full, and after how many rounds that is given up.
LITTLE = 0.05
TAKING_ROUNDS = 40
FILL_ROWS = 100_000
FILL_SECONDS = 600.0
FINISHED = (Path(__file__).parent / "finished.sql").read_text()
SPANS = """
SELECT count(*) FILTER (WHERE state = 'completed' AND fence = 1) AS completed,
       extract(epoch FROM max(finished_at) - min(created_at))::float8 AS seconds,
       extract(epoch FROM max(finished_at) - min(started_at))::float8 AS drain_seconds
FROM jobs WHERE id BETWEEN $1 AND $2 AND type = 'noop'"""
LOGGED = "SELECT (pg_current_wal_insert_lsn() - '0/0')::float8"
PAGES = "SELECT pg_relation_size('jobs') / current_setting('block_size')::bigint"
# Of the jobs behind an id, the part that stands in the first pages of the table.
SHARE_IN_PAGES = """
SELECT count(*) FILTER (WHERE (ctid::text::point)[0] < $2) / count(*)::float8 FROM jobs WHERE id > $1"""
LAST_ID = "SELECT last_value FROM jobs_id_seq"
US = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Rig:
    """One system, a client of it and a connection to its database."""

    stack: Stack
    client: Client
    database: "asyncpg.Connection[asyncpg.Record]"

    async def load(self, jobs: int, *, burdened: bool) -> Round:
        """Submit no-op jobs and wait for all; from the first row to the last end."""
        before, logged = look(), await self._logged()
        ids = await self.submit(jobs)
        seconds = await self._until_ended(ids, "seconds")
        return self._round(ids, seconds, before, await self._logged() - logged, burdened=burdened)

    async def take_room(self, jobs: int) -> list[Round]:
        """Load until hardly a job is put where the pages of now have something left; return these rounds.

        Vacuum tells of what is left after each, as it would in time.
        """
        pages = await self.database.fetchval(PAGES)
        rounds: list[Round] = []
        share = 1.0
        while share > LITTLE and len(rounds) < TAKING_ROUNDS:
            last = await self.database.fetchval(LAST_ID)
            rounds.append(await self.load(jobs, burdened=True))
            share = await self.database.fetchval(SHARE_IN_PAGES, last, pages)
            await self.tidy()
        return rounds

    async def let_wait(self, jobs: int) -> Sequence[int]:
        """Send the workers away and submit jobs; return their ids."""
        await asyncio.gather(*(self.stack.worker(index).stop(STOP_SECONDS) for index in range(WORKERS)))
        return await self.submit(jobs)

    async def drain(self, ids: Sequence[int], *, burdened: bool) -> Round:
        """Let the workers come and wait for the jobs that waited; from the first start to the last end."""
        before, logged = look(), await self._logged()
        await asyncio.gather(*(self.stack.start_worker(index) for index in range(WORKERS)))
        seconds = await self._until_ended(ids, "drain_seconds")
        return self._round(ids, seconds, before, await self._logged() - logged, burdened=burdened)

    async def submit(self, jobs: int) -> Sequence[int]:
        """Submit no-op jobs from a few callers at once; return their ids in ascending order."""
        return await load.submit(self.client.submit_many, load.batches([NOOP], jobs))

    async def add_finished(self, rows: int, days_ago: float) -> int:
        """Add jobs that ended so many days ago, as if they had long been there; return the id of the last one."""
        for at in range(0, rows, FILL_ROWS):
            await self.database.execute(FINISHED, min(FILL_ROWS, rows - at), days_ago, timeout=FILL_SECONDS)
        last: int = await self.database.fetchval(LAST_ID)
        await self.tidy()
        return last

    async def has(self, job_id: int) -> bool:
        """Return whether there is such a job."""
        return await self.database.fetchval("SELECT id FROM jobs WHERE id = $1", job_id) is not None

    async def tidy(self) -> None:
        """Have Postgres do at once what it would do later: what comes next is not to pay for what was before."""
        await self.database.execute("VACUUM (ANALYZE) jobs", timeout=FILL_SECONDS)
        await self.database.execute("CHECKPOINT", timeout=FILL_SECONDS)

    async def restart_server(self) -> None:
        """Stop the server and start it again; workers come back to it by themselves."""
        await self.stack.server.stop(STOP_SECONDS)
        await self.stack.start_server()
        await self.stack.wait_for_workers(WORKERS)

    def server_mb(self) -> float:
        """Return the resident memory of the server now."""
        return round(processes.rss_mb(self.stack.server.child.pid) or 0.0, 1)

    def server_peak_mb(self) -> float:
        """Return the most that it was since the server was started."""
        return round(processes.peak_mb(self.stack.server.child.pid) or 0.0, 1)

    async def _logged(self) -> float:
        """Return how many bytes Postgres has logged up to now."""
        logged: float = await self.database.fetchval(LOGGED)
        return logged

    def _round(self, ids: Sequence[int], seconds: float, before: Accounts, logged: float, *, burdened: bool) -> Round:
        stack, jobs = self.stack, len(ids)
        roots = (
            Root(name="server", pid=stack.server.child.pid),
            Root(name="postgres", pid=stack.postgres.child.pid),
            Root(name="redis", pid=stack.redis.child.pid),
        )
        taken = {usage.name: usage.cpu_s for usage in usages(roots, before, look())}
        cpu_us = {root.name: taken[root.name] / jobs * US for root in roots}
        return Round(burdened=burdened, jobs=jobs, jobs_per_s=jobs / seconds, cpu_us=cpu_us, wal_bytes=logged / jobs)

    async def _until_ended(self, ids: Sequence[int], span: str) -> float:
        """Return the seconds of a span once all of these have completed; each has to, at its first start."""
        await load.wait(self.client, ids, Unseen())
        row = await self.database.fetchrow(SPANS, ids[0], ids[-1])
        assert row is not None
        assert row["completed"] == len(ids), f"{row['completed']} of {len(ids)} have completed"
        seconds: float = row[span]
        return seconds


@asynccontextmanager
async def rig(settings: Mapping[str, str] | None = None) -> AsyncIterator[Rig]:
    """Start a system in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="orqestra-flat-") as folder:
        async with Stack(Path(folder), workers=WORKERS, settings=settings or {}) as stack:
            database = await asyncpg.connect(stack.db_url)
            try:
                async with Client(stack.grpc_addr) as client:
                    yield Rig(stack=stack, client=client, database=database)
            finally:
                await database.close()
