"""Hints of one server on a real Redis, and a plain look at the keys."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

from redis.asyncio import Redis

from orqestra._dispatch import Demand, Push, outbox
from orqestra.queue.connection import connect
from orqestra.queue.hints import Hints, Take
from tests.support.server import settings_for

NOW_MS = 1_700_000_000_000
LANE = 12


@dataclass(frozen=True)
class Ask:
    """What a take reads of a demand."""

    budget: int
    lanes: bytes


class Server:
    """One server's way to Redis, with short words for what tests do."""

    def __init__(self, redis: Redis, namespace: str, boot_id: str, window: int) -> None:
        self.hints = Hints(redis, namespace=namespace, boot_id=boot_id, window=window)
        self.redis: Any = redis
        self.prefix = f"{{{namespace}}}:"

    async def begin(self, *lanes: int) -> None:
        """Set the epoch, with these lanes partial."""
        await self.hints.mark(lanes, set_epoch=True)

    async def push(self, *jobs: tuple[int, int], lane: int = LANE, due_ms: int = 0) -> bool:
        """Push hints, each an id and a priority, to one lane."""
        return all([await self.hints.push(push, NOW_MS) for push in pushes(jobs, lane, due_ms)])

    async def take(self, number: int, *asks: tuple[int, bytes], now_ms: int = NOW_MS, done: Iterable[int] = ()) -> Take:
        """Take with (budget, lanes) for each profile."""
        demands = [cast(Demand, Ask(budget, lanes)) for budget, lanes in asks]
        take = await self.hints.take(number, now_ms, done=done, demands=demands)
        assert take is not None
        return take

    async def ready(self, lane: int = LANE) -> list[int]:
        """Return the jobs of a lane, best first."""
        members = await self.redis.zrange(f"{self.prefix}ready:{lane:08x}", 0, -1)
        return [int(member, 16) for member in members]

    async def partial(self) -> dict[int, str]:
        """Return the generation of each partial lane."""
        found = await self.redis.hgetall(f"{self.prefix}partial")
        return {int(lane, 16): generation.decode() for lane, generation in found.items()}

    async def processing(self) -> dict[str, str]:
        """Return what was taken and not said to be done."""
        found = await self.redis.hgetall(f"{self.prefix}processing")
        return {name.decode(): value.decode() for name, value in found.items()}

    async def delayed(self) -> dict[int, float]:
        """Return the due time of each delayed job."""
        found = await self.redis.zrange(f"{self.prefix}delayed", 0, -1, withscores=True)
        return {int(member[9:], 16): due for member, due in found}

    async def forget_time(self, field: str, age_ms: int) -> None:
        """Let a take look as old as this."""
        seconds, micros = await self.redis.time()
        _, _, hints = (await self.processing())[field].partition("|")
        await self.redis.hset(f"{self.prefix}processing", field, f"{seconds * 1000 + micros // 1000 - age_ms}|{hints}")


def pushes(jobs: Sequence[tuple[int, int]], lane: int = LANE, due_ms: int = 0) -> list[Push]:
    """Plan the pushes of jobs, each an id and a priority, as the relay does."""
    ids, priorities = [job_id for job_id, _ in jobs], [priority for _, priority in jobs]
    return outbox.drain([outbox.encode(ids, [lane] * len(ids), priorities, [due_ms] * len(ids))], NOW_MS)


def packed(*jobs: tuple[int, int], lane: int = LANE) -> bytes:
    """Return hints as they travel, in this order."""
    return b"".join(b"%08x%d%016x" % (lane, 9 - priority, job_id) for job_id, priority in jobs)


def taken(take: Take, profile: int = 0) -> list[int]:
    """Return the jobs that a take gave to a profile."""
    return outbox.ids(take.hints[profile])


@asynccontextmanager
async def server_on(redis_url: str, namespace: str, *, boot_id: str = "one", window: int = 10) -> AsyncIterator[Server]:
    """Yield the hints of one server."""
    redis = connect(settings_for("postgresql://nowhere/none", redis_url, namespace))
    try:
        yield Server(redis, namespace, boot_id, window)
    finally:
        await redis.aclose()
