"""Connections to Postgres cut in the middle of a statement: what was stored is found, nothing is done twice."""

import asyncio

import grpc
import pytest

from orqestra.engine.claims import Claims
from orqestra.v1.jobs_pb2 import (
    STATUS_CANCELLED,
    STREAM_STDOUT,
    Backoff,
    CancelledJob,
    RetryJobRequest,
    SubmitBatchRequest,
    SubmitRequest,
)
from orqestra.v1.workflows_pb2 import TriggerWorkflowRequest
from tests.property.oracles.outbox import Entry, hint
from tests.support.engine import engine_on
from tests.support.lossy_postgres import LossyPostgres
from tests.support.raw_worker import held
from tests.support.server import RunningServer, Sql, noop, refusal
from tests.support.stalling import go_on, stall_claims, stalled

pytestmark = pytest.mark.alone

# Less than what is left lying in the outbox waits for another server.
SOON_SECONDS = 1.5
WORKFLOW = "two"

LOSSES = pytest.mark.parametrize("after_commit", [True, False], ids=["after the commit", "before it"])


@pytest.fixture
def workflow(frail: RunningServer) -> str:
    """The name of a workflow of two steps."""
    text = f"name: {WORKFLOW}\nsteps:\n  - command: echo 1\n  - command: echo 2\n"
    (frail.server.settings.workflows_dir / "two.yaml").write_text(text)
    return WORKFLOW


@LOSSES
async def test_a_submit_with_a_key_is_run_again_and_stored_once(
    lossy: LossyPostgres, frail: RunningServer, sql: Sql, *, after_commit: bool
) -> None:
    await frail.submit()
    lossy.lose("INSERT INTO jobs", after_commit=after_commit)

    job_id = await frail.submit(idempotency_key="key")

    assert lossy.cuts == 1
    assert [row["id"] for row in await sql.fetch("SELECT id FROM jobs WHERE idempotency_key = 'key'")] == [job_id]


async def test_what_a_submit_stored_without_an_answer_runs_without_delay(
    lossy: LossyPostgres, frail: RunningServer, sql: Sql
) -> None:
    """Its hints were never handed over; others would bring them after seconds."""
    async with frail.worker() as worker:
        stream = await worker.open()
        lossy.lose("INSERT INTO jobs", after_commit=True)

        job_id = await frail.submit(idempotency_key="key")

        [job] = await stream.assigned(1, seconds=SOON_SECONDS)
        assert job.attempt.job_id == job_id


@LOSSES
async def test_a_submit_without_a_key_may_have_been_stored_and_is_told_so(
    lossy: LossyPostgres, frail: RunningServer, sql: Sql, *, after_commit: bool
) -> None:
    await frail.submit()
    lossy.lose("INSERT INTO jobs", after_commit=after_commit)

    refused = await refusal(frail.jobs.Submit(SubmitRequest(job=noop())))

    assert refused.status is grpc.StatusCode.ABORTED
    assert refused.trailers["orqestra-code"] == "maybe_stored"
    assert "orqestra-stored" not in refused.trailers
    assert "may have been stored" in refused.message
    assert await sql.fetchval("SELECT count(*) FROM jobs") == 1 + after_commit


@pytest.mark.parametrize("keyed", [True, False])
async def test_the_commit_of_a_large_batch_that_is_lost(
    lossy: LossyPostgres, frail: RunningServer, sql: Sql, *, keyed: bool
) -> None:
    lossy.lose("COMMIT", after_commit=True)
    batch = [noop(idempotency_key=f"k{number}" if keyed else "") for number in range(2500)]
    call = frail.jobs.SubmitBatch(SubmitBatchRequest(jobs=batch))

    if keyed:
        assert len(set((await call).ids)) == 2500
    else:
        assert (await refusal(call)).status in {grpc.StatusCode.ABORTED, grpc.StatusCode.OK}
    assert await sql.fetchval("SELECT count(*) FROM jobs") == 2500


@LOSSES
async def test_a_claim_whose_answer_is_lost_is_found_out_and_its_jobs_are_sent(
    lossy: LossyPostgres, frail: RunningServer, sql: Sql, *, after_commit: bool
) -> None:
    async with frail.worker(slots=5) as worker:
        stream = await worker.open()
        lossy.lose("claim_jobs", after_commit=after_commit)

        first = await frail.submit_many(5)
        assert sorted(await stream.run(5)) == first
        # As many again at once: no slot was forgotten.
        second = await frail.submit_many(5)
        assert sorted(job.attempt.job_id for job in await stream.assigned(5)) == second

        assert lossy.cuts == 1
        assert "goodbye" not in stream.order
        assert await sql.fetchval("SELECT max(fence) FROM jobs") == 1


async def test_a_claim_that_still_runs_when_its_connection_breaks_is_ended_before_anybody_looks(
    lossy: LossyPostgres, frail: RunningServer, sql: Sql
) -> None:
    """Read too early it would seem to have claimed nothing, and commit jobs that nobody hears of."""
    await stall_claims(sql)
    async with frail.worker(slots=3) as worker:
        stream = await worker.open()
        lossy.lose("claim_jobs", after_commit=True)
        ids = await frail.submit_many(3)
        [first] = await stalled(sql)

        lossy.cut_running()
        async with asyncio.timeout(5):
            while await sql.fetchval("SELECT count(*) FROM pg_stat_activity WHERE pid = $1", first):
                await asyncio.sleep(0.01)
        await go_on(sql)

        assert sorted(await stream.run(3)) == ids
        assert await sql.fetchval("SELECT max(fence) FROM jobs") == 1


async def test_where_postgres_cannot_be_asked_the_streams_of_a_lost_claim_are_ended(
    lossy: LossyPostgres, frail: RunningServer, sql: Sql
) -> None:
    async with frail.worker(slots=5) as worker:
        stream = await worker.open()
        lossy.lose("claim_jobs", after_commit=True, for_good=True)
        ids = await frail.submit_many(5)

        await stream.next("goodbye")
        await lossy.open()
        second = await worker.open()

        assert sorted(await second.run(5)) == ids
    assert await sql.fetchval("SELECT max(fence) FROM jobs") == 2


async def test_a_claim_that_is_cancelled_ends_the_streams_of_its_workers(database: str, sql: Sql) -> None:
    await stall_claims(sql)
    async with engine_on(database) as engine:
        worker = await engine.connect()
        job_id = await engine.submit()
        claims = Claims(engine.core, engine.sessions, engine.changed.extend)

        engine.sessions.matcher.set_lane(1, "default", [])
        assignment = engine.sessions.matcher.assign(0, hint(Entry(id=job_id, lane=1, priority=5, due_ms=0)))

        claim = asyncio.create_task(claims.claim(assignment))
        await stalled(sql)
        claim.cancel()
        with pytest.raises(asyncio.CancelledError):
            await claim

        assert len(worker.peer.ended) == 1
        await go_on(sql)


@LOSSES
async def test_a_settlement_whose_answer_is_lost_is_settled_once(
    lossy: LossyPostgres, frail: RunningServer, sql: Sql, *, after_commit: bool
) -> None:
    async with frail.worker(slots=5) as worker:
        stream = await worker.open()
        await frail.submit_many(5)
        jobs = await stream.assigned(5)
        lossy.lose("SET state = 'completed'", after_commit=after_commit)

        verdicts = await stream.finish(jobs)

    # What had been stored is told as stored before: either way the worker is rid of it.
    assert set(verdicts) == {2 if after_commit else 1}
    assert await sql.fetchval("SELECT count(*) FROM jobs WHERE state = 'completed' AND fence = 1") == 5


async def test_a_hello_that_is_cut_before_its_commit_is_run_again_and_answered(
    lossy: LossyPostgres, frail: RunningServer
) -> None:
    async with frail.worker() as worker:
        stream = await worker.open()
        await frail.submit()
        [job] = await stream.assigned(1)
        lossy.lose("resume_jobs", after_commit=True)

        second = await worker.open(held=[held(job)])

        assert lossy.cuts == 1
        assert list(second.welcome.revoke) == []
        assert await second.finish([job]) == [1]


async def test_a_hello_whose_answer_is_lost_leaves_the_worker_free_to_try_again(
    lossy: LossyPostgres, frail: RunningServer
) -> None:
    async with frail.worker() as worker:
        stream = await worker.open()
        await frail.submit()
        [job] = await stream.assigned(1)
        lossy.lose("COMMIT", after_commit=True, following="open_sessions")
        lost = await worker.dial()
        await lost.send(hello=worker.hello(held=[held(job)]))

        code, _ = await lost.end()
        assert code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.OK}
        second = await worker.open(held=[held(job)])
        assert list(second.welcome.revoke) == []
        assert await second.finish([job]) == [1]


@LOSSES
async def test_a_failure_whose_commit_is_lost_is_settled_once_and_retried_without_delay(
    lossy: LossyPostgres, frail: RunningServer, sql: Sql, *, after_commit: bool
) -> None:
    async with frail.worker() as worker:
        stream = await worker.open()
        await frail.submit(max_retries=1, backoff=Backoff(base_ms=1))
        jobs = await stream.assigned(1)
        lossy.lose("COMMIT", after_commit=after_commit, following="settle_jobs")

        [verdict] = await stream.finish(jobs, ok=False, exit_code=1)

        assert verdict == (2 if after_commit else 1)
        [again] = await stream.assigned(1, seconds=SOON_SECONDS)
        assert again.attempt.fence == 2
    assert lossy.cuts == 1
    assert await sql.fetchval("SELECT count(*) FROM attempts") == 1


@LOSSES
async def test_a_cancel_whose_commit_is_lost_is_a_cancel(
    lossy: LossyPostgres, frail: RunningServer, *, after_commit: bool
) -> None:
    job_id = await frail.submit()
    lossy.lose("COMMIT", after_commit=after_commit, following="cancel_jobs")

    [answer] = await frail.cancel(job_id)

    assert lossy.cuts == 1
    assert answer.outcome == CancelledJob.OUTCOME_CANCELLED
    assert (await frail.job(job_id)).status == STATUS_CANCELLED


@LOSSES
async def test_a_retry_whose_commit_is_lost_is_one_retry(
    lossy: LossyPostgres, frail: RunningServer, sql: Sql, *, after_commit: bool
) -> None:
    job_id = await frail.submit()
    await frail.cancel(job_id)
    async with frail.worker() as worker:
        stream = await worker.open()
        lossy.lose("COMMIT", after_commit=after_commit, following="retry_job")

        await frail.jobs.RetryJob(RetryJobRequest(id=job_id))

        jobs = await stream.assigned(1, seconds=SOON_SECONDS)
        assert await stream.finish(jobs) == [1]
    assert lossy.cuts == 1
    assert await sql.fetchval("SELECT fence FROM jobs WHERE id = $1", job_id) == 1


@LOSSES
async def test_a_run_with_a_key_whose_commit_is_lost_is_one_run_and_starts_without_delay(
    lossy: LossyPostgres, frail: RunningServer, sql: Sql, workflow: str, *, after_commit: bool
) -> None:
    async with frail.worker() as worker:
        stream = await worker.open()
        lossy.lose("COMMIT", after_commit=after_commit, following="add_run")

        answer = await frail.workflows.TriggerWorkflow(TriggerWorkflowRequest(name=workflow, idempotency_key="key"))

        [job] = await stream.assigned(1, seconds=SOON_SECONDS)
        assert await sql.fetchval("SELECT run_id FROM jobs WHERE id = $1", job.attempt.job_id) == answer.id
    assert lossy.cuts == 1
    assert await sql.fetchval("SELECT count(*) FROM workflow_runs") == 1


async def test_an_output_that_is_cut_off_on_its_way_to_the_next_step_is_read_again(
    lossy: LossyPostgres, frail: RunningServer, workflow: str
) -> None:
    async with frail.worker() as worker:
        stream = await worker.open()
        await frail.workflows.TriggerWorkflow(TriggerWorkflowRequest(name=workflow))
        lossy.lose("read_previous_output", after_commit=False)

        [first] = await stream.assigned(1)
        # Kept apart, it is read for the claim of the next step.
        assert await stream.store(first.attempt, STREAM_STDOUT, 0, b"seen")
        await stream.finish([first], stdout_stored=True, stdout_bytes=4)

        [second] = await stream.assigned(1, seconds=SOON_SECONDS)
        assert second.previous_output == b"seen"
    assert lossy.cuts == 1


async def test_a_run_without_a_key_is_only_doubtful_if_its_commit_was_sent(
    lossy: LossyPostgres, frail: RunningServer, sql: Sql, workflow: str
) -> None:
    request = TriggerWorkflowRequest(name=workflow)
    lossy.lose("add_run", after_commit=True)
    await frail.workflows.TriggerWorkflow(request)
    assert (lossy.cuts, await sql.fetchval("SELECT count(*) FROM workflow_runs")) == (1, 1)

    lossy.lose("COMMIT", after_commit=True, following="add_run")
    refused = await refusal(frail.workflows.TriggerWorkflow(request))

    assert refused.trailers["orqestra-code"] == "maybe_stored"
    assert await sql.fetchval("SELECT count(*) FROM workflow_runs") == 2


@LOSSES
async def test_a_step_whose_commit_is_lost_is_followed_once_and_without_delay(
    lossy: LossyPostgres, frail: RunningServer, sql: Sql, workflow: str, *, after_commit: bool
) -> None:
    async with frail.worker() as worker:
        stream = await worker.open()
        await frail.workflows.TriggerWorkflow(TriggerWorkflowRequest(name=workflow))
        jobs = await stream.assigned(1)
        lossy.lose("COMMIT", after_commit=after_commit, following="settle_jobs")

        await stream.finish(jobs)

        await stream.assigned(1, seconds=SOON_SECONDS)
    assert lossy.cuts == 1
    assert await sql.fetchval("SELECT count(*) FROM jobs") == 2
