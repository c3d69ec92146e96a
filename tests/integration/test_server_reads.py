"""Reading, cancelling, retrying and watching jobs over the wire."""

import asyncio
from typing import Any

import grpc
import pytest

from orqestra.v1 import jobs_pb2
from orqestra.v1.jobs_pb2 import (
    STATUS_CANCELLED,
    STATUS_COMPLETED,
    STATUS_FAILED,
    STATUS_PENDING,
    STATUS_RETRYING,
    STATUS_RUNNING,
    CancelledJob,
    ListJobsRequest,
    RetryJobRequest,
    WatchJobRequest,
)
from tests.support.server import RunningServer, Sql, noop, refusal

AT_ONCE = jobs_pb2.Backoff(base_ms=0)


async def listed(server: RunningServer, **request: Any) -> list[int]:
    """Return the ids of one page."""
    answer = await server.jobs.ListJobs(ListJobsRequest(**request))
    return [job.id for job in answer.jobs]


# Lists


async def test_a_list_is_filtered_and_has_no_output(server: RunningServer) -> None:
    plain = await server.submit()
    async with server.worker() as worker:
        stream = await worker.open()
        await stream.finish(await stream.assigned(1), stdout=b"out", stdout_bytes=3)
    other = await server.submit(queue="other", tags=["a", "b"])
    labelled = await server.submit(labels={"k": "v", "z": "1"}, tags=["b"])
    shell = await server.submit(type="shell", payload=b'{"command": "true"}')

    assert await listed(server) == [shell, labelled, other, plain]
    assert await listed(server, statuses=[STATUS_PENDING]) == [shell, labelled, other]
    assert await listed(server, statuses=[STATUS_COMPLETED, STATUS_FAILED]) == [plain]
    assert await listed(server, queue="other") == [other]
    assert await listed(server, type="shell") == [shell]
    assert await listed(server, tags=["b"]) == [labelled, other]
    assert await listed(server, tags=["a", "b"]) == [other]
    assert await listed(server, labels={"k": "v"}) == [labelled]
    assert await listed(server, labels={"k": "v"}, queue="other") == []
    assert await listed(server, queue="never") == []
    [job] = (await server.jobs.ListJobs(ListJobsRequest(statuses=[STATUS_COMPLETED]))).jobs
    assert (job.stdout, job.payload, list(job.attempts), job.stdout_bytes) == (b"", b"", [], 3)


async def test_pages_follow_each_other_and_end(server: RunningServer) -> None:
    ids = await server.submit_many(25)
    await server.submit_many(5, queue="other")
    seen: list[int] = []
    after, pages = 0, 0
    while True:
        page = await server.jobs.ListJobs(ListJobsRequest(queue="default", limit=10, after=after))
        seen += [job.id for job in page.jobs]
        pages, after = pages + 1, page.next
        if not after:
            break
        await server.submit()  # what is new does not shift the pages

    assert seen == ids[::-1]
    assert pages <= 4


async def test_failed_and_cancelled_jobs_are_found_among_many(server: RunningServer, sql: Sql) -> None:
    ids = await server.submit_many(300)
    await server.cancel(ids[7], ids[250])

    assert await listed(server, statuses=[STATUS_CANCELLED]) == [ids[250], ids[7]]
    assert await listed(server, statuses=[STATUS_CANCELLED], limit=1) == [ids[250]]
    assert await listed(server, statuses=[STATUS_CANCELLED], after=ids[250]) == [ids[7]]
    assert await listed(server, statuses=[STATUS_FAILED]) == []


# Cancel


async def test_cancel_tells_of_each_job_in_the_order_asked(server: RunningServer) -> None:
    async with server.worker(slots=2) as worker:
        stream = await worker.open()
        done = await server.submit()
        await stream.finish(await stream.assigned(1))
        running = await server.submit()
        await stream.assigned(1)
        waiting = await server.submit(queue="nobody")
        delayed = await server.submit(delay_ms=60_000)

        answers = await server.cancel(waiting, 4711, running, done, delayed, waiting, -5)
        again = await server.cancel(waiting, running)

    outcomes = [(each.id, each.outcome, each.status) for each in answers]
    not_found = (CancelledJob.OUTCOME_NOT_FOUND, 0)
    assert outcomes == [
        (waiting, CancelledJob.OUTCOME_CANCELLED, STATUS_CANCELLED),
        (4711, *not_found),
        (running, CancelledJob.OUTCOME_STOPPING, STATUS_RUNNING),
        (done, CancelledJob.OUTCOME_FINISHED, STATUS_COMPLETED),
        (delayed, CancelledJob.OUTCOME_CANCELLED, STATUS_CANCELLED),
        (waiting, CancelledJob.OUTCOME_CANCELLED, STATUS_CANCELLED),
        (-5, *not_found),
    ]
    assert [each.outcome for each in again] == [CancelledJob.OUTCOME_FINISHED, CancelledJob.OUTCOME_STOPPING]


async def test_a_cancelled_job_never_runs(server: RunningServer) -> None:
    ids = await server.submit_many(50)
    await server.cancel(*ids[::2])
    async with server.worker(slots=50) as worker:
        stream = await worker.open()
        got = [job.attempt.job_id for job in await stream.assigned(25)]
        await stream.none("assign", 0.3)

    assert sorted(got) == ids[1::2]
    job = await server.job(ids[0])
    assert (job.status, job.fence, job.reason, job.HasField("finished_at")) == (STATUS_CANCELLED, 0, "cancelled", True)


@pytest.mark.asyncio(loop_scope="module")
async def test_ten_thousand_jobs_are_cancelled_in_one_call(module_server: RunningServer) -> None:
    ids = await module_server.submit_many(10_000, queue="nobody")

    answers = await module_server.cancel(*ids)

    assert {each.outcome for each in answers} == {CancelledJob.OUTCOME_CANCELLED}
    assert [each.id for each in answers] == ids


# Retry


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("end", [STATUS_FAILED, STATUS_CANCELLED])
async def test_a_job_that_did_not_make_it_gets_a_new_budget(module_server: RunningServer, end: jobs_pb2.Status) -> None:
    job_id = await module_server.submit(max_retries=1, backoff=AT_ONCE)
    async with module_server.worker() as worker:
        stream = await worker.open()
        await stream.finish(await stream.assigned(1), ok=False)
        jobs = await stream.assigned(1)
        if end == STATUS_CANCELLED:
            await module_server.cancel(job_id)
        await stream.finish(jobs, ok=False, stdout=b"old", exit_code=7)
        assert (await module_server.job(job_id)).status == end

        job = await module_server.jobs.RetryJob(RetryJobRequest(id=job_id))

        assert job.status in {STATUS_PENDING, STATUS_RUNNING}
        assert (job.fence >= 2, job.cancel_requested, job.HasField("finished_at")) == (True, False, False)
        assert (job.stdout, job.HasField("exit_code"), len(job.attempts)) == (b"", False, 2)
        for fence in (3, 4):
            [again] = await stream.assigned(1)
            assert (again.attempt.fence, again.attempt_number) == (fence, fence - 2)
            await stream.finish([again], ok=fence == 4)
    found = await module_server.job(job_id)
    assert (found.status, found.attempt, len(found.attempts)) == (STATUS_COMPLETED, 2, 4)


async def test_only_a_failed_or_cancelled_job_can_be_retried(server: RunningServer) -> None:
    async with server.worker() as worker:
        stream = await worker.open()
        done = await server.submit()
        await stream.finish(await stream.assigned(1))
        running = await server.submit()
        await stream.assigned(1)
        waiting = await server.submit(queue="nobody")
        for job_id, word in ((done, "completed"), (running, "running"), (waiting, "pending")):
            refused = await refusal(server.jobs.RetryJob(RetryJobRequest(id=job_id)))

            assert refused.status is grpc.StatusCode.FAILED_PRECONDITION
            assert f"job {job_id} is {word}" in refused.message
            assert "failed or cancelled" in refused.message
            assert (refused.trailers["orqestra-code"], refused.trailers["orqestra-stored"]) == ("refused", "no")


# Watch


@pytest.mark.asyncio(loop_scope="module")
async def test_watch_tells_the_states_in_order_and_ends(module_server: RunningServer) -> None:
    job_id = await module_server.submit(max_retries=1, backoff=jobs_pb2.Backoff(base_ms=150, factor=1))
    seen: list[jobs_pb2.Job] = []
    call = module_server.jobs.WatchJob(WatchJobRequest(id=job_id))

    async def next_state() -> int:
        seen.append(await call.read())
        return seen[-1].status

    assert await next_state() == STATUS_PENDING
    async with module_server.worker() as worker:
        stream = await worker.open()
        [job] = await stream.assigned(1)
        # A claim is not told to those who watch; a second's look finds it.
        assert await next_state() == STATUS_RUNNING
        await stream.finish([job], ok=False)
        states = [await next_state()]
        await stream.finish(await stream.assigned(1))
        while states[-1] != STATUS_COMPLETED:
            states.append(await next_state())
        assert await call.read() is grpc.aio.EOF

    assert states in ([STATUS_RETRYING, STATUS_RUNNING, STATUS_COMPLETED], [STATUS_RETRYING, STATUS_COMPLETED])
    assert seen[1].attempt == 1


@pytest.mark.asyncio(loop_scope="module")
async def test_watch_of_a_finished_job_ends_at_once(module_server: RunningServer) -> None:
    job_id = await module_server.submit(queue="nobody")
    await module_server.cancel(job_id)

    states = [job.status async for job in module_server.jobs.WatchJob(WatchJobRequest(id=job_id))]

    assert states == [STATUS_CANCELLED]


@pytest.mark.asyncio(loop_scope="module")
async def test_many_watch_and_the_end_is_told_at_once(module_server: RunningServer) -> None:
    job_id = await module_server.submit()
    calls = [module_server.jobs.WatchJob(WatchJobRequest(id=job_id)) for _ in range(20)]
    for call in calls:
        await call.read()
    gone = calls.pop()
    gone.cancel()

    await module_server.cancel(job_id)

    async with asyncio.timeout(0.5):
        assert {(await call.read()).status for call in calls} == {STATUS_CANCELLED}


@pytest.mark.asyncio(loop_scope="module")
async def test_a_job_without_output_is_whole_but_for_that(module_server: RunningServer) -> None:
    job_id = await module_server.submit(payload=b'{"a": 1}')
    async with module_server.worker() as worker:
        stream = await worker.open()
        await stream.finish(await stream.assigned(1), stdout=b"out", stdout_bytes=3)

    job = await module_server.jobs.GetJob(jobs_pb2.GetJobRequest(id=job_id, without_output=True))

    assert (job.payload, job.stdout, job.stdout_bytes, len(job.attempts)) == (b'{"a": 1}', b"", 3, 1)
    assert noop().type == job.type
