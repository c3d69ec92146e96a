"""Procrastinate: batches in, many jobs at once in each worker. The address is in PGHOST and its like."""

import asyncio
import sys
import time

from counter import count
from procrastinate import App, PsycopgConnector
from producer import batches, order, tell

BATCH = 1000
CONCURRENCY = 20

app = App(connector=PsycopgConnector(min_size=4, max_size=CONCURRENCY))


@app.task(name="noop")
async def noop(payload):
    """Count."""
    count()


async def prepare():
    async with app.open_async():
        await app.schema_manager.apply_schema_async()


async def submit():
    jobs, payload = order()
    async with app.open_async():
        began_at = time.monotonic()
        for size in batches(jobs, BATCH):
            await noop.batch_defer_async(*({"payload": payload} for _ in range(size)))
        tell(began_at)


async def worker():
    async with app.open_async():
        await app.run_worker_async(concurrency=CONCURRENCY)


if __name__ == "__main__":
    asyncio.run({"prepare": prepare, "submit": submit, "worker": worker}[sys.argv[1]]())
