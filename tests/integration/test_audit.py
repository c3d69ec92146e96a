"""The audit on a real server: a hint that Redis loses by itself is found again."""

import asyncio

import redis.asyncio

from orqestra.v1 import jobs_pb2
from tests.support.server import RunningServer

FOUND_SECONDS = 6.0


async def test_a_lost_hint_is_found_and_its_job_runs(
    server: RunningServer, redis_url: str, redis_namespace: str
) -> None:
    # Given a job that waits for a worker, whose hint Redis has forgotten
    job_id = await server.submit()
    async with redis.asyncio.from_url(redis_url) as client:
        async with asyncio.timeout(FOUND_SECONDS):
            while not await client.keys(f"{{{redis_namespace}}}:ready:*"):
                await asyncio.sleep(0.01)
        [ready] = await client.keys(f"{{{redis_namespace}}}:ready:*")
        await client.delete(ready)

    # When a worker comes that serves its lane
    async with server.worker() as worker:
        stream = await worker.open()
        [job] = await stream.assigned(1, FOUND_SECONDS)
        await stream.finish([job])

    # Then it has run, once
    assert job.attempt.job_id == job_id
    assert (await server.until(job_id, jobs_pb2.STATUS_COMPLETED)).attempt == 1
