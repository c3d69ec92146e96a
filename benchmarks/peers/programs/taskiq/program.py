"""taskiq on Redis streams: two processes, as its command starts it (see peer.toml)."""

import asyncio
import os
import time

import uvloop
from counter import count
from producer import batches, order, tell
from taskiq_redis import RedisStreamBroker

AT_ONCE = 100

broker = RedisStreamBroker(url=f"unix://{os.environ['REDIS_SOCKET']}")


@broker.task(task_name="noop")
async def noop(payload):
    """Count."""
    count()


async def submit():
    jobs, payload = order()
    await broker.startup()
    began_at = time.monotonic()
    for size in batches(jobs, AT_ONCE):
        await asyncio.gather(*(noop.kiq(payload) for _ in range(size)))
    tell(began_at)
    await broker.shutdown()


if __name__ == "__main__":
    uvloop.run(submit())
