"""One cell of the matrix: a fault, where it strikes, whom, and what must hold afterwards."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self, TypeAlias

import asyncpg

from orqestra.model.lifecycle import TERMINAL, State
from tests.chaos.cluster import Cluster
from tests.chaos.load import JOBS_PER_SECOND, Clients
from tests.chaos.nodes import Server, Shape, Worker
from tests.support.fifo import Fifo

DRAIN_SECONDS: Final = 30.0
POLL_SECONDS: Final = 0.02
# Before the fault: long enough that every loop is warm and each worker has run something.
WARM_JOBS: Final = 12
# A held job is claimed at most so often, and at most so many are held at once.
FENCES: Final = 6
HOLDERS: Final = 4
# After it: so many jobs that were submitted later must have ended.
LATER_JOBS: Final = 5


Act: TypeAlias = Callable[["Stage"], Coroutine[Any, Any, None]]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What is done, to whom, and the promise. `act` must call `Stage.fault` when it strikes."""

    point: str
    victim: str
    act: Act
    bound_seconds: float
    """From the fault, or its heal if the act says so (`Stage.healed`), until all goes on as before."""
    shape: Shape = field(default_factory=Shape)
    starts: tuple[int, int] = (1, 1)
    """How often a job that is there at the fault may be started, unless the act says otherwise."""
    quiet: bool = False
    """Nothing but what the act does goes on until the fault, so that the counts of starts are exact."""
    jobs_per_second: float = JOBS_PER_SECOND
    subset: bool = False
    """It is one of those that every run of the tests has."""
    alone: bool = False
    """It judges, or leaves behind, a whole cluster: it gets a new one, which is of no use to others afterwards."""
    judged_by_history: bool = True
    """False: the act judges by itself, where there is no one history of what was committed."""

    @property
    def name(self) -> str:
        """How it is called for."""
        return f"{self.point}/{self.victim}"

    def of_build(self, broken: str) -> "Cell":
        """Return the same cell for a build that is broken on purpose."""
        return replace(self, shape=replace(self.shape, broken=broken))


class Holds:
    """Where commands that run `hold NAME` wait, those of each fence at a fifo of their own."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._fifos = {fence: Fifo(folder / f"{name}-{fence}") for fence in range(1, FENCES + 1)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for fifo in self._fifos.values():
            fifo.__exit__()

    def release(self, *fences: int) -> None:
        """Let the commands of these fences go on."""
        for fence in fences:
            for _ in range(HOLDERS):
                self._fifos[fence].release()


@dataclass(kw_only=True)
class Stage:
    """What an act works with, and what it notes for the verdict."""

    cell: Cell
    cluster: Cluster
    clients: Clients
    chance: random.Random
    since_id: int
    holds: Holds
    hit: bool = False
    fault_at: float = 0.0
    """Unix seconds, as all times here: Postgres runs on the same machine."""
    recovers_from: float = 0.0
    over_at: float = 0.0
    """When nothing was down or bad any more."""
    starts: dict[int, tuple[int, int]] = field(default_factory=dict)
    """How often single jobs may be started."""
    aside: set[int] = field(default_factory=set)
    """Jobs whose end the act itself holds up: they say nothing about the recovery."""
    figures: dict[str, float] = field(default_factory=dict)
    """What an act measured."""
    broken: list[str] = field(default_factory=list)
    """Promises of its own that an act found broken."""
    _fault: asyncio.Event = field(default_factory=asyncio.Event)

    def fault(self) -> None:
        """Note that it strikes now: recovery is measured from here, unless `healed` says later."""
        self.hit = True
        self.fault_at = self.recovers_from = time.time()
        self._fault.set()

    def healed(self) -> None:
        """Note that what was down is there again: recovery is measured from here."""
        self.recovers_from = time.time()

    async def held_job(self) -> int:
        """Have a command run until `release`; return the id of its job."""
        job_id = await self.running("hold", self.holds.name)
        self.aside.add(job_id)
        return job_id

    def release(self) -> None:
        """Let the commands of held jobs end, those of every attempt."""
        self.aside.clear()
        self.holds.release(*range(1, FENCES + 1))

    def demand(self, holds: bool, otherwise: str) -> None:
        """Note a broken promise unless it holds."""
        if not holds:
            self.broken.append(otherwise)

    @asynccontextmanager
    async def background(self) -> AsyncIterator[None]:
        """Have jobs submitted all the time; in a quiet cell from the fault on."""

        async def submit() -> None:
            if self.cell.quiet:
                await self._fault.wait()
            async with self.clients.background(self.cell.jobs_per_second):
                await asyncio.Event().wait()

        submitting = asyncio.create_task(submit())
        try:
            if not self.cell.quiet:
                await self.ended_jobs(WARM_JOBS)
            yield
        finally:
            submitting.cancel()
            await asyncio.gather(submitting, return_exceptions=True)

    async def running(self, *work: str, **spec: object) -> int:
        """Submit a probe and return its id once it has noted its start."""
        job_id = await self.clients.submit(*work, **spec)
        await self.started(job_id)
        return job_id

    async def started(self, job_id: int, times: int = 1) -> None:
        """Return once a job has been started so often."""
        await self.until(lambda: self.count_starts(job_id) >= times)

    def count_starts(self, job_id: int) -> int:
        """Return how often a job has been started."""
        lines = (line.split() for line in self.cluster.journal.read_text().splitlines())
        return sum(words[:2] == ["start", str(job_id)] for words in lines)

    async def until(self, condition: Callable[[], bool], seconds: float = DRAIN_SECONDS) -> None:
        """Return once `condition` holds."""
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(POLL_SECONDS)

    async def ended(self, *job_ids: int, seconds: float = DRAIN_SECONDS) -> None:
        """Return once these jobs have ended."""
        await self._until_sql(
            "SELECT count(*) = $2 FROM jobs WHERE id = ANY($1) AND state = ANY($3)",
            (list(job_ids), len(job_ids), sorted(TERMINAL)),
            seconds,
        )

    async def ended_up_to(self, job_id: int, seconds: float = DRAIN_SECONDS) -> None:
        """Return once every job of this stage up to that one has ended."""
        await self._until_sql(
            "SELECT NOT EXISTS (SELECT FROM jobs WHERE id > $1 AND id <= $2 AND state <> ALL($3))",
            (self.since_id, job_id, sorted(TERMINAL)),
            seconds,
        )

    async def ended_jobs(self, count: int, seconds: float = DRAIN_SECONDS) -> None:
        """Return once so many jobs of this stage have ended."""
        await self._until_sql(
            "SELECT count(*) >= $2 FROM jobs WHERE id > $1 AND state = ANY($3)",
            (self.since_id, count, sorted(TERMINAL)),
            seconds,
        )

    async def more_ended(self, count: int) -> None:
        """Return once so many more jobs have ended."""
        rows = await self.fetch(
            "SELECT count(*) AS n FROM jobs WHERE id > $1 AND state = ANY($2)", self.since_id, sorted(TERMINAL)
        )
        await self.ended_jobs(rows[0]["n"] + count)

    async def recovered(self, seconds: float = DRAIN_SECONDS) -> None:
        """Return once all that lived at the fault has ended and some that came later too."""
        await self._until_sql(
            """SELECT (SELECT count(*) FROM jobs WHERE id > $1 AND created_at > to_timestamp($2)
                                                  AND state = ANY($4)) >= $3
                  AND NOT EXISTS (SELECT FROM jobs WHERE id > $1 AND created_at <= to_timestamp($2)
                                                     AND state <> ALL($4) AND id <> ALL($5))""",
            (self.since_id, self.recovers_from, LATER_JOBS, sorted(TERMINAL), sorted(self.aside)),
            seconds,
        )

    async def recovery_seconds(self) -> float:
        """Return how long that took: the last end of what lived at the fault, the first ones of what came later."""
        rows = await self.fetch(
            """SELECT extract(epoch FROM greatest(
                   (SELECT max(finished_at) FROM jobs WHERE id > $1 AND created_at <= to_timestamp($2)
                                                        AND id <> ALL($4)),
                   (SELECT max(f) FROM (SELECT finished_at AS f FROM jobs WHERE id > $1
                        AND created_at > to_timestamp($2) ORDER BY finished_at LIMIT $3) AS first)))::float8 AS at""",
            self.since_id,
            self.recovers_from,
            LATER_JOBS,
            sorted(self.aside),
        )
        return max(0.0, float(rows[0]["at"] or 0.0) - self.recovers_from)

    async def drained(self) -> None:
        """Return once every job of this stage and every run has ended; nobody submits any more."""
        await self._until_sql(
            "SELECT NOT EXISTS (SELECT FROM jobs WHERE id > $1 AND state <> ALL($2))"
            " AND NOT EXISTS (SELECT FROM workflow_runs WHERE finished_at IS NULL) AND NOT EXISTS (SELECT FROM outbox)",
            (self.since_id, sorted(TERMINAL)),
            DRAIN_SECONDS,
        )

    async def worker_of(self, job_id: int) -> Worker:
        """Return the worker that a job is claimed for."""
        rows = await self.fetch(
            "SELECT s.name FROM jobs j JOIN sessions s ON s.id = j.session_id WHERE j.id = $1 AND j.state = $2",
            job_id,
            State.RUNNING,
        )
        if not rows:
            return self.cluster.workers[0]
        return next(worker for worker in self.cluster.workers if worker.name == rows[0]["name"])

    async def server_of(self, worker: Worker) -> Server:
        """Return the server that a worker has its session with."""
        rows = await self.fetch("SELECT server_name FROM sessions WHERE name = $1 AND closed_at IS NULL", worker.name)
        pid = int(rows[0]["server_name"].rpartition(":")[2]) if rows else 0
        return next((server for server in self.cluster.servers if server.pid == pid), self.cluster.servers[0])

    async def last_job(self) -> int:
        """Return the newest job."""
        rows = await self.fetch("SELECT max(id) AS id FROM jobs")
        return int(rows[0]["id"] or 0)

    async def fetch(self, query: str, *values: object) -> list[asyncpg.Record]:
        """Ask Postgres, past all proxies."""
        connection = await asyncpg.connect(self.cluster.db_url)
        try:
            return await connection.fetch(query, *values)
        finally:
            await connection.close()

    async def _until_sql(self, query: str, values: tuple[object, ...], seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not await self._holds(query, values):
                    pass  # the fault may be on Postgres
        except TimeoutError:
            raise TimeoutError(f"not within {seconds:g} s: {' '.join(query.split())} {values}") from None

    async def _holds(self, query: str, values: tuple[object, ...]) -> bool:
        """Return True once Postgres says so, False if it went away meanwhile."""
        try:
            connection = await asyncpg.connect(self.cluster.db_url)
        except (OSError, asyncpg.PostgresError):
            await asyncio.sleep(POLL_SECONDS)
            return False
        try:
            while not await connection.fetchval(query, *values):
                await asyncio.sleep(POLL_SECONDS)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        finally:
            connection.terminate()
        return True
