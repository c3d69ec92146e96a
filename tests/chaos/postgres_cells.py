"""What can go wrong with Postgres: away, slow, silent, locked, full, or answering to nobody any more."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final

import asyncpg

from tests.chaos.cell import Act, Cell, Stage
from tests.chaos.kill_cells import BOUNDS, ONE
from tests.chaos.load import JOBS_PER_SECOND
from tests.chaos.proxy import Toxics, Way
from tests.support.processes import descendants

# How long a fault lasts that ends by itself: longer than a lease, and than a command may take.
SPELL_SECONDS: Final = 6.0
IDLE_CONNECTIONS: Final = 300
LOCK_SECONDS: Final = 4.0
TERMINATIONS: Final = 40
TERMINATE_EVERY_SECONDS: Final = 0.2
# At a fifth of a second for an answer, what comes is to stay below what can be done.
SLOW_JOBS_PER_SECOND: Final = 10.0

# Statements that commit by themselves, and the texts that they are known by.
COMMITS: Final = {"submit": "/* submit_jobs", "claim": "/* claim_jobs */", "settle": "/* settle_completed */"}


async def postgres_crash(stage: Stage) -> None:
    """Postgres is away for longer than a lease while commands run: none of them is taken for lost."""
    for _ in range(stage.cluster.shape.slots):
        await stage.running("sleep", "1")
    await stage.cluster.kill_postgres()
    stage.fault()
    await asyncio.sleep(stage.cluster.shape.lease_seconds + 1)
    await stage.cluster.postgres.start()
    stage.healed()
    await stage.recovered()


async def terminate_backends(stage: Stage) -> None:
    """An operator ends connection after connection."""
    connection = await asyncpg.connect(stage.cluster.db_url)
    try:
        for _ in range(TERMINATIONS):
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'server-%'"
                " ORDER BY random() LIMIT 1"
            )
            stage.fault()
            await asyncio.sleep(TERMINATE_EVERY_SECONDS)
    finally:
        await connection.close()
    await stage.recovered()


async def lost_commit(stage: Stage, statement: str) -> None:
    """What a statement did is committed, and its answer never comes."""
    ways = [server.links.commits for server in stage.cluster.servers]
    for way in ways:
        way.lose(COMMITS[statement], after_commit=True)
    await stage.until(lambda: any(way.cut_now.is_set() for way in ways))
    stage.fault()
    for way in ways:
        way.doomed = None
    await stage.recovered()


async def postgres_link(stage: Stage, toxics: Toxics, seconds: float = SPELL_SECONDS) -> None:
    """The way to Postgres is bad for a while."""
    for server in stage.cluster.servers:
        server.links.postgres.set(toxics)
    stage.fault()
    await asyncio.sleep(seconds)
    await stage.cluster.heal()
    stage.healed()
    await stage.recovered()


async def postgres_slow(stage: Stage) -> None:
    """Each answer of Postgres takes a fifth of a second: slower, and no lease is lost over it."""
    for server in stage.cluster.servers:
        server.links.postgres.set(Toxics(latency_seconds=0.1))
    stage.fault()
    await stage.more_ended(50)
    await stage.cluster.heal()
    stage.healed()
    await stage.recovered()


async def postgres_stopped(stage: Stage) -> None:
    """Postgres stands still with all its backends, then goes on where it was."""
    processes = await _backends(stage)
    for pid in processes:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    stage.fault()
    await asyncio.sleep(SPELL_SECONDS)
    for pid in processes:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    stage.healed()
    await stage.recovered()


async def table_locked(stage: Stage) -> None:
    """Somebody locks the table of jobs for a while: nothing moves, and no lease is lost over it."""
    for _ in range(stage.cluster.shape.slots):
        await stage.running("sleep", "1")
    connection = await asyncpg.connect(stage.cluster.db_url)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
            stage.fault()
            await asyncio.sleep(LOCK_SECONDS)
    finally:
        await connection.close()
    stage.healed()
    await stage.recovered()


async def old_transaction(stage: Stage) -> None:
    """Somebody holds a snapshot open, so that nothing dead is cleared away."""
    connection = await asyncpg.connect(stage.cluster.db_url)
    try:
        async with connection.transaction(isolation="repeatable_read"):
            await connection.fetch("SELECT count(*) FROM jobs")
            stage.fault()
            await stage.recovered()
            await stage.more_ended(100)
    finally:
        await connection.close()


async def idle_connections(stage: Stage) -> None:
    """Others hold all the connections they can get, and ours are opened anew meanwhile."""
    async with _held_connections(stage, IDLE_CONNECTIONS):
        stage.fault()
        await stage.recovered()
        await stage.more_ended(50)


async def no_connections(stage: Stage) -> None:
    """Others hold every connection that there is: those that we have go on serving."""
    async with _held_connections(stage, 1000):
        stage.fault()
        await asyncio.sleep(SPELL_SECONDS / 2)
    stage.healed()
    await stage.recovered()


async def read_only(stage: Stage) -> None:
    """The database takes no writes for a while."""
    await _alter_system(stage, "default_transaction_read_only = on")
    stage.fault()
    try:
        await asyncio.sleep(SPELL_SECONDS / 2)
    finally:
        await _alter_system(stage, "default_transaction_read_only = off")
    stage.healed()
    await stage.recovered()


def postgres_cells() -> list[Cell]:
    """Return the cells of the table."""
    hole = Toxics(holes={Way.UP, Way.DOWN})
    lost = [
        _cell(f"reply to COMMIT lost: {name}", partial(lost_commit, statement=name), bound_seconds=3.0, subset=True)
        for name in COMMITS
    ]
    return [
        *lost,
        _cell("away for more than a lease", postgres_crash),
        _cell("backends terminated, 5/s", terminate_backends),
        _cell("black hole", partial(postgres_link, toxics=hole), bound_seconds=10.0),
        _cell("connections refused", partial(postgres_link, toxics=Toxics(refuse=True), seconds=2.0)),
        _cell("slow", postgres_slow, jobs_per_second=SLOW_JOBS_PER_SECOND),
        _cell("stopped", postgres_stopped),
        _cell("jobs locked", table_locked),
        _cell("old snapshot held", old_transaction, bound_seconds=3.0),
        _cell("300 idle connections", idle_connections, bound_seconds=3.0),
        _cell("no connection left", no_connections),
        _cell("read-only", read_only),
    ]


def _cell(
    point: str,
    act: Act,
    *,
    bound_seconds: float = BOUNDS["PG"],
    jobs_per_second: float = JOBS_PER_SECOND,
    subset: bool = False,
) -> Cell:
    return Cell(
        point=point,
        victim="Postgres",
        act=act,
        bound_seconds=bound_seconds,
        shape=ONE,
        jobs_per_second=jobs_per_second,
        subset=subset,
    )


@asynccontextmanager
async def _held_connections(stage: Stage, count: int) -> AsyncIterator[None]:
    """Hold `count` connections, or as many as Postgres gives."""
    held: list[asyncpg.Connection[asyncpg.Record]] = []
    try:
        with suppress(asyncpg.TooManyConnectionsError):
            for _ in range(count):
                held.append(await asyncpg.connect(stage.cluster.db_url))
        yield
    finally:
        for connection in held:
            connection.terminate()


async def _alter_system(stage: Stage, setting: str) -> None:
    connection = await asyncpg.connect(stage.cluster.db_url)
    try:
        await connection.execute("SET default_transaction_read_only = off")
        await connection.execute(f"ALTER SYSTEM SET {setting}")
        await connection.execute("SELECT pg_reload_conf()")
    finally:
        await connection.close()


async def _backends(stage: Stage) -> list[int]:
    """Return the pids of Postgres, the postmaster last: it must not notice what happens to the others."""
    postmaster = stage.cluster.postgres.child.pid
    return [*(process.pid for process in descendants(postmaster)), postmaster]
