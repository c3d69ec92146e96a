"""SAQ on Redis; its command starts one process with these settings."""

import asyncio
import os
import time

import uvloop
from counter import count
from producer import batches, order, tell
from redis.asyncio import Redis
from saq.queue.redis import RedisQueue

AT_ONCE = 100
CONCURRENCY = 20

# Each of the jobs at once blocks a connection.
queue = RedisQueue(Redis(unix_socket_path=os.environ["REDIS_SOCKET"], max_connections=4 * AT_ONCE))


async def noop(context, *, payload):
    """Count."""
    count()


settings = {"queue": queue, "functions": [noop], "concurrency": CONCURRENCY}


async def submit():
    jobs, payload = order()
    await queue.connect()
    began_at = time.monotonic()
    for size in batches(jobs, AT_ONCE):
        await asyncio.gather(*(queue.enqueue("noop", payload=payload, ttl=-1) for _ in range(size)))
    tell(began_at)
    await queue.disconnect()


if __name__ == "__main__":
    uvloop.run(submit())
