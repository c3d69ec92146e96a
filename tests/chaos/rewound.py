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
from collections.abc import Sequence
from typing import Any, Final

from orqestra.client import JobSpec, new_key
from orqestra.model.job import JobType
from orqestra.model.lifecycle import TERMINAL, State
from orqestra.model.retry import RetryPolicy
from orqestra.v1.jobs_pb2 import STREAM_STDOUT
from orqestra.v1.worker_pb2 import AttemptRef, ResultAcks
from tests.chaos.cell import Stage
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
HELLO_SECONDS: Final = 10.0
PAUSE_SECONDS: Final = 0.05
WHILE_AWAY_SECONDS: Final = 0.5


async def rewound(stage: Stage, *, restart: bool) -> None:
    """Put Postgres back by some seconds; with `restart` the servers are started anew, else they live through it."""
    cluster = stage.cluster
    by_hand = await _submit(stage, BY_HAND)
    kept = await stage.held_job()
    await _copy_state(stage)
    known_at = time.monotonic()
    await stage.more_ended(LATE_JOBS)
    doomed = [await _doomed_job(stage) for _ in range(DOOMED_JOBS)]
    forgotten = await _submit(stage, NEW_QUEUE)
    stage.aside |= {by_hand, kept, forgotten, *doomed}
    async with RawWorker(_address(stage), queues=(BY_HAND, NEW_QUEUE), slots=2, name=BY_HAND) as worker:
        old = {job.attempt.job_id: job.attempt for job in await (await worker.open()).assigned(2)}
        await _put_back(stage, restart=restart)
        stage.aside = {by_hand, kept}
        stage.release()
        again = await _submit(stage, NEW_QUEUE)
        stream = await _come_back(worker, list(old.values()))
        await _demand_verdicts(stage, stream, old[by_hand], expected=(by_hand, again))
        await stage.recovered()
        await stream.hang_up()
    await _judge(stage, known_at, kept)


async def _demand_verdicts(stage: Stage, stream: RawStream, old: AttemptRef, *, expected: Sequence[int]) -> None:
    """Report, as one who was away, what the forgotten future left, and then what is really due."""
    fresh: dict[int, Any] = {}
    while not fresh.keys() >= set(expected):
        fresh |= {job.attempt.job_id: job for job in (await stream.next("assign")).jobs}
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


async def _copy_state(stage: Stage) -> None:
    """Keep what Postgres holds now, as a crash would leave it."""
    postgres = stage.cluster.postgres
    await stage.cluster.kill_postgres()
    await _copy(postgres.data, postgres.directory / "older")
    await postgres.start()
    await stage.cluster.whole()


async def _put_back(stage: Stage, *, restart: bool) -> None:
    """Put the kept state in the place of the present one; what was running ends meanwhile."""
    cluster = stage.cluster
    await cluster.kill_postgres()
    stage.fault()
    # The doomed commands end while there is nobody to take their results.
    stage.holds.release(1)
    if restart:
        for server in cluster.servers:
            await server.kill()
    await asyncio.sleep(WHILE_AWAY_SECONDS)
    shutil.rmtree(cluster.postgres.data)
    (cluster.postgres.directory / "older").rename(cluster.postgres.data)
    await cluster.postgres.start()
    stage.healed()
    if restart:
        for server in cluster.servers:
            server.start()


async def _judge(stage: Stage, known_at: float, kept: int) -> None:
    """Decide by what Postgres holds, once all of it has ended."""
    async with asyncio.timeout(HELLO_SECONDS):
        while await stage.fetch("SELECT FROM jobs WHERE state <> ALL($1)", sorted(TERMINAL)):
            await asyncio.sleep(PAUSE_SECONDS)
    rows = await stage.fetch("SELECT id, idempotency_key AS key, state, exit_code, lane_id FROM jobs")
    for row in rows:
        stage.demand(row["exit_code"] != DOOMED_CODE, f"job {row['id']} has a result of the forgotten future")
        stage.demand(row["state"] == State.COMPLETED, f"job {row['id']} ended as {row['state']}")
    lanes = {row["id"] for row in await stage.fetch("SELECT id FROM lanes")}
    homeless = [row["id"] for row in rows if row["lane_id"] not in lanes]
    stage.demand(not homeless, f"jobs {homeless} are in a lane that there is not: no other server would find them")
    stage.demand(
        stage.count_starts(kept) == 1, f"the job that ran all the time started {stage.count_starts(kept)} times"
    )
    _count_forgotten(stage, known_at, {row["key"] for row in rows})


def _count_forgotten(stage: Stage, known_at: float, keys: set[str]) -> None:
    """What was acknowledged before the state that was put back, and after that, is there."""
    healed_at = time.monotonic() - (time.time() - stage.recovers_from)
    acked = [each for each in stage.clients.operations if each.kind == "submit" and each.outcome == "ok"]
    missing = [each for each in acked if each.key not in keys]
    wrong = [each for each in missing if each.answered_at < known_at or each.invoked_at > healed_at]
    stage.demand(not wrong, f"lost: {[each.job_id for each in wrong]}, acknowledged before or after what was forgotten")
    stage.figures["forgotten"] = len(missing)


async def _doomed_job(stage: Stage) -> int:
    """Have a command run until it is let go, and then end as no other does."""
    hold = stage.cluster.probe("hold", stage.holds.name)
    command = ["/bin/sh", "-c", f'"$@"; exit {DOOMED_CODE}', "doomed", *hold]
    job_id = await stage.clients.submit_command(command, retries=NO_RETRIES)
    await stage.started(job_id)
    return job_id


async def _submit(stage: Stage, queue: str) -> int:
    """Submit a job for the worker that the test plays."""
    job_id = await stage.cluster.client.submit(JobSpec(type=JobType.NOOP, queue=queue, key=new_key()))
    stage.aside.add(job_id)
    return job_id


async def _come_back(worker: RawWorker, held: Sequence[AttemptRef]) -> RawStream:
    """Open another stream, as soon as there is a server that can."""
    async with asyncio.timeout(HELLO_SECONDS):
        while True:
            try:
                return await worker.open()
            except AssertionError:
                await asyncio.sleep(PAUSE_SECONDS)


def _address(stage: Stage) -> str:
    return f"127.0.0.1:{stage.cluster.servers[0].grpc_port}"


async def _copy(source: Any, target: Any) -> None:
    # With owners and modes, without which Postgres would not take it.
    await asyncio.to_thread(subprocess.run, ["cp", "--archive", str(source), str(target)], check=True)
