"""What can go wrong with Redis: away, empty, old, slow, full, silent, or answering nothing but errors."""

import asyncio
import signal
import time
from functools import partial
from typing import Final

from orqestra.model.limits import PRIORITY_MAX
from tests.chaos.cell import Act, Cell, Stage
from tests.chaos.cluster import NAMESPACE
from tests.chaos.kill_cells import BOUNDS, TWO
from tests.chaos.proxy import Toxics, Way

FLUSHES: Final = 4
# Without Redis: at least this share of the rate with it.
DEGRADED_RATIO: Final = 0.3
BURST: Final = 150
SUBSET: Final = frozenset({"FLUSHALL, again and again", "restarted from an old dump", "hints doubled"})


async def flushall(stage: Stage) -> None:
    """Redis forgets everything, again and again."""
    for _ in range(FLUSHES):
        async with stage.cluster.redis_client() as redis:
            await redis.flushall()
        stage.fault()
        await stage.recovered()


async def old_dump(stage: Stage) -> None:
    """Redis comes back with what it knew a while ago: an epoch, and hints of jobs that have ended."""
    async with stage.cluster.redis_client() as redis:
        await redis.save()
    await stage.more_ended(100)
    await stage.cluster.kill_redis()
    stage.fault()
    await stage.cluster.redis.start()
    stage.healed()
    await stage.recovered()
    (stage.cluster.redis.directory / "dump.rdb").unlink()


async def redis_away(stage: Stage) -> None:
    """Redis is gone for a while: service goes on, only slower."""
    usual = await _rate(stage)
    await stage.cluster.kill_redis()
    stage.fault()
    await stage.recovered()
    without = await _rate(stage)
    stage.figures["rate_without_redis"] = round(without / usual, 2)
    stage.demand(without >= DEGRADED_RATIO * usual, f"without Redis {without:.0f} jobs/s instead of {usual:.0f}")
    await stage.cluster.redis.start()


async def redis_stopped(stage: Stage) -> None:
    """Redis accepts connections and says nothing, then goes on where it was."""
    stage.cluster.redis.child.send(signal.SIGSTOP)
    stage.fault()
    try:
        await stage.recovered()
    finally:
        stage.cluster.redis.child.send(signal.SIGCONT)
    await stage.more_ended(100)


async def redis_link(stage: Stage, toxics: Toxics) -> None:
    """The way to Redis is bad; service goes on in spite of it, and when it is good again."""
    for server in stage.cluster.servers:
        server.links.redis.set(toxics)
    stage.fault()
    await stage.recovered()
    await stage.cluster.heal()
    await stage.more_ended(100)


async def redis_refuses(stage: Stage, setting: str, bad: str, good: str) -> None:
    """Redis answers every write with an error."""
    async with stage.cluster.redis_client() as redis:
        await redis.config_set(setting, bad)
        stage.fault()
        try:
            await stage.recovered()
        finally:
            await redis.config_set(setting, good)


async def redis_replica(stage: Stage) -> None:
    """Redis has become a replica of one that is not there: it can be read and not written."""
    async with stage.cluster.redis_client() as redis:
        await redis.slaveof("127.0.0.1", "1")
        stage.fault()
        try:
            await stage.recovered()
        finally:
            await redis.slaveof()


async def doubled_hints(stage: Stage) -> None:
    """Redis gives hints a second time: of a job that runs, and of one that has ended."""
    ended = await stage.clients.submit()
    await stage.ended(ended)
    running = await stage.held_job()
    rows = await stage.fetch("SELECT id, lane_id, priority FROM jobs WHERE id = ANY($1)", [ended, running])
    async with stage.cluster.redis_client() as redis:
        for row in rows:
            key = f"{{{NAMESPACE}}}:ready:{row['lane_id']:08x}"
            await redis.zadd(key, {f"{row['id']:016x}": PRIORITY_MAX - row["priority"]})
    stage.fault()
    # Whatever waits there now is behind the two.
    await stage.more_ended(60)
    stage.release()
    await stage.recovered()


async def redis_forgets_scripts(stage: Stage) -> None:
    """Scripts and connections are gone, the data is not."""
    async with stage.cluster.redis_client() as redis:
        await redis.script_flush()
        await redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    stage.fault()
    await stage.recovered()


def redis_cells() -> list[Cell]:
    """Return the cells of the table."""
    acts: dict[str, Act] = {
        "FLUSHALL, again and again": flushall,
        "restarted from an old dump": old_dump,
        "hints doubled": doubled_hints,
        "away": redis_away,
        "stopped": redis_stopped,
        "slow": partial(redis_link, toxics=Toxics(latency_seconds=0.5)),
        "black hole": partial(redis_link, toxics=Toxics(holes={Way.UP, Way.DOWN})),
        "out of memory": partial(redis_refuses, setting="maxmemory", bad="1mb", good="0"),
        "read-only replica": redis_replica,
        "SCRIPT FLUSH and CLIENT KILL": redis_forgets_scripts,
    }
    return [
        Cell(point=point, victim="Redis", act=act, bound_seconds=BOUNDS["R"], shape=TWO, subset=point in SUBSET)
        for point, act in acts.items()
    ]


async def _rate(stage: Stage) -> float:
    """Return how many short commands are run in a second, besides what runs anyway."""
    began = time.monotonic()
    ids = await asyncio.gather(*(stage.clients.submit() for _ in range(BURST)))
    await stage.ended(*ids)
    return BURST / (time.monotonic() - began)
