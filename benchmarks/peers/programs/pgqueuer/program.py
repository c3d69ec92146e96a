"""PgQueuer: batches in, batches of 250 out, asyncpg and uvloop. The address is in PGHOST and its like."""

import asyncio
import signal
import sys
import time

import asyncpg
import uvloop
from counter import count
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries
from producer import batches, order, tell

BATCH = 1000
CALLERS = 4
DEQUEUE_BATCH = 250


async def prepare():
    await Queries(AsyncpgDriver(await asyncpg.connect())).install()


async def submit():
    jobs, payload = order()
    connections = [await asyncpg.connect() for _ in range(CALLERS)]
    sizes = list(batches(jobs, BATCH))

    async def call(queries):
        while sizes:
            size = sizes.pop()
            await queries.enqueue(["noop"] * size, [payload.encode()] * size, [0] * size)

    began_at = time.monotonic()
    await asyncio.gather(*(call(Queries(AsyncpgDriver(connection))) for connection in connections))
    tell(began_at)


async def worker():
    queuer = PgQueuer.from_asyncpg_pool(await asyncpg.create_pool(min_size=2, max_size=10))

    @queuer.entrypoint("noop")
    async def noop(job):
        count()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, queuer.shutdown.set)
    await queuer.run(batch_size=DEQUEUE_BATCH)


if __name__ == "__main__":
    uvloop.run({"prepare": prepare, "submit": submit, "worker": worker}[sys.argv[1]]())
