"""Where nothing is broken nothing is repaired: two servers, three workers and a mixed load."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace

import asyncpg
import pytest

from orqestra.client import Client, JobSpec, JobType, RetryPolicy, new_key
from orqestra.engine.repairs import Repair
from tests.support.metrics import repairs, scrape
from tests.support.second_server import LABEL, second_server
from tests.support.system import System, running_system, shell

WORKERS = 2
SLOTS = 8
JOBS = 3000
BATCH = 100
CANCELLED = 10
END_SECONDS = 90.0
LOOK_SECONDS = 0.2
# So small that lanes are partial and are refilled: that is no repair.
WINDOW = 50
# The audit may look a moment before a hint arrives.
ALLOWED = {Repair.HINT_MISSING}


def mixed(count: int) -> list[JobSpec]:
    """Return jobs of all kinds, the same at every run."""
    kinds = (
        (20, JobSpec(type=JobType.NOOP)),
        (8, JobSpec(type=JobType.NOOP, priority=9)),
        (8, JobSpec(type=JobType.NOOP, delay_ms=700)),
        (8, JobSpec(type=JobType.NOOP, requires=(LABEL,))),
        (4, shell("true")),
        (2, shell("exit 3", retries=RetryPolicy(max_retries=2, base_ms=50))),
        (1, shell("head -c 100000 /dev/zero")),
    )
    chosen = random.Random(1).choices([job for _, job in kinds], [weight for weight, _ in kinds], k=count)
    return [replace(job, key=new_key()) for job in chosen]


async def run_mixed_load(system: System, clients: Sequence[Client]) -> None:
    """Submit at all servers, cancel what runs at each through any, and wait for the end of it all."""
    to_cancel = [await client.submit(shell("sleep 600")) for client in clients for _ in range(CANCELLED // 2)]
    for number, job_id in enumerate(to_cancel):
        await system.running(job_id)
        await clients[number % len(clients)].cancel([job_id])
    jobs = mixed(JOBS)
    batches = [jobs[at : at + BATCH] for at in range(0, JOBS, BATCH)]
    await asyncio.gather(*(clients[at % len(clients)].submit_many(batch) for at, batch in enumerate(batches)))
    connection = await asyncpg.connect(system.stack.db_url)
    try:
        while await connection.fetchval("SELECT count(*) FROM jobs WHERE finished_at IS NULL"):
            await asyncio.sleep(LOOK_SECONDS)
    finally:
        await connection.close()


@pytest.mark.timeout(150)
async def test_a_healthy_run_repairs_nothing() -> None:
    settings = {"ORQESTRA_WINDOW": str(WINDOW)}
    async with (
        running_system(workers=WORKERS, slots=SLOTS, settings=settings) as system,
        second_server(system.stack, slots=SLOTS) as second,
        Client(second.address) as other,
    ):
        async with asyncio.timeout(END_SECONDS):
            await run_mixed_load(system, [system.client, other])

        for http in (system.stack.http_addr, second.http):
            counted = await repairs(http)
            assert counted.keys() <= ALLOWED, counted
            samples = await scrape(http)
            assert {name: value for name, value in samples.items() if "service_errors" in name and value} == {}
            assert samples["orqestra_redis_up"] == 1
