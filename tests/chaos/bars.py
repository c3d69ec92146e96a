"""The promises that take a number to state: each measured on a cluster of its own, without witnesses that cost speed.

Compared is what happens in the same run on the same cluster, never with figures of another day.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Final

import asyncpg

from orqestra.client import Client, JobSpec, new_key
from orqestra.model.job import JobType
from orqestra.model.lifecycle import TERMINAL, State
from tests.chaos.cluster import Cluster
from tests.chaos.nodes import Shape
from tests.chaos.report import CellResult
from tests.chaos.runner import running_cluster

FAST: Final = Shape(servers=1, workers=2, slots=64, lease_seconds=15, witnessed=False)
BACKLOG: Final = 1_000_000
INSERT_ROWS: Final = 100_000
FLOWING: Final = 2_000
BATCH: Final = 1000
SENDERS: Final = 4
WAITING_AT_MOST: Final = 20_000
WARM_SECONDS: Final = 3.0
TURNS: Final = 4
CALM_SECONDS: Final = 10.0
HURT_SECONDS: Final = 15.0
TERMINATE_EVERY_SECONDS: Final = 0.2
THROUGHPUT_RATIO: Final = 0.9
POLL_SECONDS: Final = 0.05
RECOVERY_SECONDS: Final = 3.0
WAIT_SECONDS: Final = 60.0


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One measurement: `measure` returns the figures and what of the promise did not hold."""

    point: str
    victim: str
    bound_seconds: float
    shape: Shape
    measure: Callable[[Cluster], Awaitable[tuple[dict[str, float], list[str]]]]

    @property
    def name(self) -> str:
        """How it is called for, as a cell."""
        return f"{self.point}/{self.victim}"


async def run_bar(bar: Bar) -> CellResult:
    """Measure one on a new cluster."""
    async with running_cluster(bar.shape) as cluster:
        try:
            figures, broken = await bar.measure(cluster)
        except (TimeoutError, AssertionError) as error:
            figures, broken = {}, [f"{type(error).__name__}: {error}"]
    return CellResult(
        point=bar.point,
        victim=bar.victim,
        seed=0,
        hit=bool(figures),
        recovery_s=figures.get("recovery_s"),
        bound_s=bar.bound_seconds,
        violations=tuple(broken),
        figures={name: value for name, value in figures.items() if name != "recovery_s"},
    )


async def backlog_and_no_redis(
    cluster: Cluster, *, strike: Callable[[Cluster], Awaitable[None]]
) -> tuple[dict[str, float], list[str]]:
    """With a million jobs waiting Redis forgets all: jobs must flow again at once, as fast as before."""
    lane_id = await _lane(cluster)
    await _insert_backlog(cluster, lane_id)
    await cluster.servers[0].stop()
    cluster.servers[0].start()
    began = time.monotonic()
    await cluster.whole()
    figures = {"server_ready_s": round(time.monotonic() - began, 2)}
    async with _postgres(cluster) as connection:
        usual = await _rate(connection, lane_id, 4.0)
        before = await _head(connection, lane_id)
        await strike(cluster)
        struck = time.monotonic()
        async with asyncio.timeout(WAIT_SECONDS):
            while await _head(connection, lane_id) < before + FLOWING:
                await asyncio.sleep(POLL_SECONDS)
        figures["recovery_s"] = round(time.monotonic() - struck, 2)
        after = await _rate(connection, lane_id, 4.0)
        left = await connection.fetchval("SELECT count(*) FROM jobs WHERE state = $1", State.PENDING)
    figures |= {"waiting": left, "jobs_per_s": round(usual), "after_ratio": round(after / usual, 2)}
    broken = []
    if figures["server_ready_s"] > RECOVERY_SECONDS:
        broken.append(f"a server was ready after {figures['server_ready_s']} s")
    if figures["recovery_s"] > RECOVERY_SECONDS:
        broken.append(f"jobs flow again after {figures['recovery_s']} s, the bound is {RECOVERY_SECONDS:g} s")
    if after < THROUGHPUT_RATIO * usual:
        broken.append(f"{after:.0f} jobs/s afterwards instead of {usual:.0f}")
    return figures, broken


async def terminated_backends(cluster: Cluster) -> tuple[dict[str, float], list[str]]:
    """Connections are ended five times a second for a minute: next to nothing of the throughput is lost."""
    calm: list[float] = []
    hurt: list[float] = []
    async with _postgres(cluster) as connection, _steady_load(cluster):
        await _completed_in(connection, WARM_SECONDS)
        # In turns: the machine drifts, and the table grows.
        for _ in range(TURNS):
            calm.append(await _completed_in(connection, CALM_SECONDS))
            ending = asyncio.create_task(_terminate(cluster))
            try:
                hurt.append(await _completed_in(connection, HURT_SECONDS))
            finally:
                ending.cancel()
                await asyncio.gather(ending, return_exceptions=True)
        calm.append(await _completed_in(connection, CALM_SECONDS))
    ratio = fmean(hurt) / fmean(calm)
    figures = {"jobs_per_s": round(fmean(calm)), "hurt_per_s": round(fmean(hurt)), "ratio": round(ratio, 2)}
    broken = [] if ratio >= THROUGHPUT_RATIO else [f"{ratio:.2f} of the throughput, the bar is {THROUGHPUT_RATIO}"]
    return figures, broken


async def flushall(cluster: Cluster) -> None:
    """Let Redis forget everything."""
    async with cluster.redis_client() as redis:
        await redis.flushall()


async def kill_redis(cluster: Cluster) -> None:
    """End Redis and start it again, empty."""
    await cluster.kill_redis()
    await cluster.redis.start()


def bars() -> list[Bar]:
    """Return all that is measured so."""
    return [
        Bar(
            point="FLUSHALL with 1,000,000 waiting",
            victim="Redis",
            bound_seconds=RECOVERY_SECONDS,
            shape=FAST,
            measure=partial(backlog_and_no_redis, strike=flushall),
        ),
        Bar(
            point="killed with 1,000,000 waiting",
            victim="Redis",
            bound_seconds=RECOVERY_SECONDS,
            shape=FAST,
            measure=partial(backlog_and_no_redis, strike=kill_redis),
        ),
        Bar(
            point="throughput, backends terminated 5/s",
            victim="Postgres",
            bound_seconds=0.0,
            shape=FAST,
            measure=terminated_backends,
        ),
    ]


async def _lane(cluster: Cluster) -> int:
    """Return the lane of plain jobs, which the first of them makes."""
    job_id = await cluster.client.submit(JobSpec(type=JobType.NOOP))
    async with _postgres(cluster) as connection:
        return int(await connection.fetchval("SELECT lane_id FROM jobs WHERE id = $1", job_id))


async def _insert_backlog(cluster: Cluster, lane_id: int) -> None:
    """Put a million jobs that do nothing right into the table: submitting them would take its time."""
    async with _postgres(cluster) as connection:
        for _ in range(BACKLOG // INSERT_ROWS):
            await connection.execute(INSERT, lane_id, INSERT_ROWS, State.PENDING)
        await connection.execute("ANALYZE jobs")


async def _head(connection: "asyncpg.Connection[asyncpg.Record]", lane_id: int) -> int:
    """Return the oldest job that waits in a lane: jobs leave it in the order of their ids."""
    head = await connection.fetchval(HEAD, lane_id)
    assert head is not None, "the backlog was too small: all of it is done"
    return int(head)


async def _rate(connection: "asyncpg.Connection[asyncpg.Record]", lane_id: int, seconds: float) -> float:
    began, first = time.monotonic(), await _head(connection, lane_id)
    await asyncio.sleep(seconds)
    return (await _head(connection, lane_id) - first) / (time.monotonic() - began)


async def _completed_in(connection: "asyncpg.Connection[asyncpg.Record]", seconds: float) -> float:
    """Return how many jobs a second end in this time."""
    began, first = time.monotonic(), await connection.fetchval(ENDED, sorted(TERMINAL))
    await asyncio.sleep(seconds)
    return float(await connection.fetchval(ENDED, sorted(TERMINAL)) - first) / (time.monotonic() - began)


async def _terminate(cluster: Cluster) -> None:
    """End one connection of the server after the other, as an operator can."""
    async with _postgres(cluster) as connection:
        while True:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name LIKE 'server-%' ORDER BY random() LIMIT 1"
            )
            await asyncio.sleep(TERMINATE_EVERY_SECONDS)


@asynccontextmanager
async def _steady_load(cluster: Cluster) -> AsyncIterator[None]:
    """Have clients submit so that some thousand jobs always wait."""

    async def submit(client: Client) -> None:
        async with _postgres(cluster) as connection:
            while True:
                await client.submit_many(JobSpec(type=JobType.NOOP, key=new_key()) for _ in range(BATCH))
                while await connection.fetchval(WAITING) > WAITING_AT_MOST:
                    await asyncio.sleep(POLL_SECONDS)

    address = f"127.0.0.1:{cluster.servers[0].grpc_port}"
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Client(address)) for _ in range(SENDERS)]
        senders = [asyncio.create_task(submit(client)) for client in clients]
        try:
            yield
        finally:
            for sender in senders:
                sender.cancel()
            await asyncio.gather(*senders, return_exceptions=True)


@asynccontextmanager
async def _postgres(cluster: Cluster) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    connection = await asyncpg.connect(cluster.db_url)
    try:
        yield connection
    finally:
        await connection.close()


INSERT: Final = """
INSERT INTO jobs (id, queue, lane_id, priority, type, payload, max_retries, backoff_base_ms, backoff_factor,
                  backoff_cap_ms, timeout_ms, grace_ms, available_at, delayed, state)
SELECT nextval('jobs_id_seq'), 'default', $1, 4, 'noop', '{}', 3, 1000, 2, 60000, 0, 5000, now(), false, $3
FROM generate_series(1, $2::integer)"""
HEAD: Final = """
SELECT id FROM jobs WHERE lane_id = $1 AND state = 'pending' AND NOT delayed ORDER BY priority DESC, id LIMIT 1"""
ENDED: Final = "SELECT count(*) FROM jobs WHERE state = ANY($1)"
# By the index of what waits: the table has all that has ended too.
WAITING: Final = "SELECT count(*) FROM jobs WHERE state = 'pending' AND NOT delayed AND lane_id > 0"
