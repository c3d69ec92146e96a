"""A Postgres that is put back to an older state: what a promoted standby that lagged, or a restore, looks like.

What was committed in between never was; that is lost by definition, and counted. But what comes out of that
forgotten future, results above all, must not be taken for anything of the present. There is no one history of
such a cluster, so that the act judges by what Postgres holds in the end.

A worker that the test plays itself shows the sharpest case: it holds an attempt of the forgotten future and gets
the same job with the same fence again, so that only the token tells the two apart.
"""

import asyncio
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc

from orqestra.client import JobSpec, new_key
from orqestra.model.job import JobType
from orqestra.model.lifecycle import TERMINAL, State
from orqestra.model.retry import RetryPolicy
from orqestra.v1.jobs_pb2 import STREAM_STDOUT
from orqestra.v1.worker_pb2 import AttemptRef, ResultAcks
from tests.chaos.cell import Holds, Stage
from tests.support.raw_worker import RawStream, RawWorker, good

BY_HAND: Final = "by-hand"
# First used in the time that is forgotten.
NEW_QUEUE: Final = "new"
LATE_JOBS: Final = 100
DOOMED_JOBS: Final = 4
# What a command of the forgotten future ends with, and no other.
DOOMED_CODE: Final = 7
NO_SUCH_JOB: Final = 2**40
NO_RETRIES: Final = RetryPolicy(max_retries=0)
SLOTS: Final = 2
BEAT_SECONDS: Final = 0.5
HELLO_SECONDS: Final = 10.0
PAUSE_SECONDS: Final = 0.05
SHOWN: Final = 5
# Longer than a server may go without a renewal: what it then finds lapsed, it gives another lease to come back.
AWAY_SECONDS: Final = 2.5


async def rewound(stage: Stage, *, restart: bool) -> None:
    """Put Postgres back by some seconds; with `restart` the servers are started anew, else they live through it."""
    by_hand = await _submit(stage, BY_HAND)
    kept = await stage.held_job()
    known_at = time.monotonic()
    await _copy_state(stage)
    await stage.more_ended(LATE_JOBS)
    with Holds(stage.cluster.folder, f"doomed-{kept}") as doom:
        for _ in range(DOOMED_JOBS):
            await _doomed_job(stage, doom)
        await _submit(stage, NEW_QUEUE)
        async with RawWorker(_address(stage), queues=(BY_HAND, NEW_QUEUE), slots=SLOTS, name=BY_HAND) as worker:
            old = {job.attempt.job_id: job.attempt for job in await (await worker.open()).assigned(2)}
            await _put_back(stage, doom, restart=restart)
            stage.aside = {by_hand, kept}
            again = await _submit(stage, NEW_QUEUE)
            stream = await _come_back(worker)
            async with _beating(stream):
                await _demand_verdicts(stage, stream, old[by_hand], expected=(by_hand, again))
            stage.release()
            await stage.recovered()
            await stream.hang_up()
    await _judge(stage, known_at, kept, restart=restart)


async def _demand_verdicts(stage: Stage, stream: RawStream, old: AttemptRef, *, expected: Sequence[int]) -> None:
    """Report, as one who was away, what the forgotten future left, and then what is really due."""
    fresh = await _assigned_again(stage, stream, set(expected))
    stage.figures["by_hand_s"] = round(time.time() - stage.recovers_from, 2)
    new = fresh[old.job_id].attempt
    stage.demand(
        new.fence == old.fence, f"the fences are {old.fence} and {new.fence}: the token was not put to the test"
    )
    stage.demand(not await stream.store(old, STREAM_STDOUT, 0, b"old"), "output of a forgotten attempt was stored")
    failed = good(old, ok=False, exit_code=DOOMED_CODE)
    unknown = good(AttemptRef(job_id=NO_SUCH_JOB, fence=1, token=1))
    verdicts = await stream.report([failed, unknown])
    right = [ResultAcks.VERDICT_STALE, ResultAcks.VERDICT_UNKNOWN]
    stage.demand(verdicts == right, f"the verdicts on forgotten attempts are {verdicts}, not {right}")
    verdicts = await stream.finish(fresh.values())
    stage.demand(set(verdicts) == {ResultAcks.VERDICT_ACCEPTED}, f"the verdicts on present attempts are {verdicts}")


async def _assigned_again(stage: Stage, stream: RawStream, expected: set[int]) -> dict[int, Any]:
    """Return these jobs as they are assigned, without those that a worker of another queue has got."""
    fresh: dict[int, Any] = {}
    waits_until = time.monotonic() + HELLO_SECONDS
    while missing := expected - fresh.keys() - await _misplaced(stage):
        if time.monotonic() > waits_until:
            raise TimeoutError(f"jobs {sorted(missing)} came neither here nor elsewhere in {HELLO_SECONDS:g} s")
        if not stream.has("assign"):
            await asyncio.sleep(PAUSE_SECONDS)
            continue
        jobs = {job.attempt.job_id: job for job in (await stream.next("assign")).jobs}
        fresh |= {job_id: jobs.pop(job_id) for job_id in expected if job_id in jobs}
        # Of another queue, by a hint of the forgotten future whose job id is another job's now.
        await stream.finish(jobs.values())
    return fresh


async def _misplaced(stage: Stage) -> set[int]:
    """Return the jobs that went to workers of other queues."""
    return {row["id"] for row in await stage.fetch(MISPLACED, BY_HAND, [BY_HAND, NEW_QUEUE])}


async def _copy_state(stage: Stage) -> None:
    """Keep what Postgres holds now, as a crash would leave it."""
    postgres = stage.cluster.postgres
    await stage.cluster.kill_postgres()
    await _copy(postgres.data, postgres.directory / "older")
    await postgres.start()
    await stage.cluster.whole()


async def _put_back(stage: Stage, doom: Holds, *, restart: bool) -> None:
    """Put the kept state in the place of the present one; what was running ends meanwhile."""
    cluster = stage.cluster
    await cluster.kill_postgres()
    stage.fault()
    # The doomed commands end while there is nobody to take their results.
    doom.release(1)
    if restart:
        for server in cluster.servers:
            await server.kill()
        async with cluster.redis_client() as redis:
            # Its hints name lanes of jobs whose ids will be other jobs': who restores Postgres empties it.
            await redis.flushall()
    await asyncio.sleep(AWAY_SECONDS)
    shutil.rmtree(cluster.postgres.data)
    (cluster.postgres.directory / "older").rename(cluster.postgres.data)
    await cluster.postgres.start()
    stage.healed()
    if restart:
        for server in cluster.servers:
            server.start()


async def _judge(stage: Stage, known_at: float, kept: int, *, restart: bool) -> None:
    """Decide by what Postgres holds, once all of it has ended."""
    last = await stage.last_job()
    await _until_ended(stage, last)
    rows = await stage.fetch("SELECT id, state, exit_code, lane_id FROM jobs WHERE id <= $1", last)
    for row in rows:
        stage.demand(row["exit_code"] != DOOMED_CODE, f"job {row['id']} has a result of the forgotten future")
        stage.demand(row["state"] == State.COMPLETED, f"job {row['id']} ended as {row['state']}")
    lanes = {row["id"] for row in await stage.fetch("SELECT id FROM lanes")}
    homeless = [row["id"] for row in rows if row["lane_id"] not in lanes]
    # A server that lives on believes in lanes that are forgotten, and would be the only one to find these jobs.
    stage.figures["in_forgotten_lanes"] = len(homeless)
    stage.demand(not (restart and homeless), f"jobs {homeless} are in a lane that there is not: who would find them?")
    misplaced = await _misplaced(stage)
    stage.figures["to_other_queues"] = len(misplaced)
    stage.demand(not (restart and misplaced), f"{sorted(misplaced)} went to workers of other queues")
    starts = stage.count_starts(kept)
    stage.demand(starts == 1, f"the job that ran all the time was started {starts} times")
    await _count_forgotten(stage, known_at)


async def _until_ended(stage: Stage, last: int) -> None:
    """Return once every job up to `last` has ended: slowly where the machine is slow, but one after the other."""
    fewest, waits_until = last + 1, 0.0
    while stuck := await stage.fetch(STUCK, last, sorted(TERMINAL)):
        if len(stuck) < fewest:
            fewest, waits_until = len(stuck), time.monotonic() + HELLO_SECONDS
        if time.monotonic() > waits_until:
            shown = [dict(row) for row in stuck[:SHOWN]]
            raise TimeoutError(f"{len(stuck)} jobs, none of which ended in {HELLO_SECONDS:g} s, first {shown}")
        await asyncio.sleep(PAUSE_SECONDS)


async def _count_forgotten(stage: Stage, known_at: float) -> None:
    """What was acknowledged before the state that was put back, and after that, is there."""
    healed_at = time.monotonic() - (time.time() - stage.recovers_from)
    acked = [each for each in stage.clients.operations if each.kind == "submit" and each.outcome == "ok"]
    keys = {row["key"] for row in await stage.fetch("SELECT idempotency_key AS key FROM jobs")}
    missing = [each for each in acked if each.key not in keys]
    wrong = [each.job_id for each in missing if each.answered_at < known_at or each.invoked_at > healed_at]
    stage.demand(not wrong, f"lost: {wrong}, acknowledged before or after what was forgotten")
    stage.figures["forgotten"] = len(missing)


async def _doomed_job(stage: Stage, doom: Holds) -> int:
    """Have a command run until it is let go, and then end as no other does."""
    hold = stage.cluster.probe("hold", doom.name)
    command = ["/bin/sh", "-c", f'"$@"; exit {DOOMED_CODE}', "doomed", *hold]
    job_id = await stage.clients.submit_command(command, retries=NO_RETRIES)
    await stage.started(job_id)
    return job_id


async def _submit(stage: Stage, queue: str) -> int:
    """Submit a job for the worker that the test plays."""
    job_id = await stage.cluster.client.submit(JobSpec(type=JobType.NOOP, queue=queue, key=new_key()))
    stage.aside.add(job_id)
    return job_id


async def _come_back(worker: RawWorker) -> RawStream:
    """Open another stream, as soon as there is a server that can."""
    async with asyncio.timeout(HELLO_SECONDS):
        while True:
            try:
                return await worker.open()
            except (AssertionError, grpc.aio.AioRpcError, grpc.aio.UsageError):
                await asyncio.sleep(PAUSE_SECONDS)


@asynccontextmanager
async def _beating(stream: RawStream) -> AsyncIterator[None]:
    """Keep the lease meanwhile."""

    async def beat() -> None:
        while True:
            await stream.beat(SLOTS)
            await asyncio.sleep(BEAT_SECONDS)

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)


def _address(stage: Stage) -> str:
    return f"127.0.0.1:{stage.cluster.servers[0].grpc_port}"


async def _copy(source: Any, target: Any) -> None:
    # With owners and modes, without which Postgres would not take it.
    await asyncio.to_thread(subprocess.run, ["cp", "--archive", str(source), str(target)], check=True)


STUCK: Final = """
SELECT id, queue, state, fence, return_count, lost_count, session_id FROM jobs WHERE id <= $1 AND state <> ALL($2)
ORDER BY id"""
MISPLACED: Final = """
SELECT j.id FROM jobs j JOIN sessions s ON s.id = j.session_id WHERE (s.name = $1) <> (j.queue = ANY($2))"""
