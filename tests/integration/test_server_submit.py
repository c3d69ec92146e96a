"""Submits over the wire: one, many, a stream of batches, the same again, too much."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from orqestra.model import limits
from orqestra.settings import Settings
from orqestra.v1 import jobs_pb2
from orqestra.v1.jobs_pb2 import SubmitBatchRequest, SubmitBatchResponse, SubmitRequest, SubmitStreamRequest
from tests.support.server import RunningServer, Sql, noop, refusal, running_server
from tests.support.stalling import submits_blocked


async def stored_jobs(sql: Sql) -> int:
    count: int = await sql.fetchval("SELECT count(*) FROM jobs")
    return count


# One and many


@pytest.mark.asyncio(loop_scope="module")
async def test_a_job_is_stored_as_it_was_asked_for(module_server: RunningServer) -> None:
    spec = noop(
        payload=b'{"x": 1}',
        queue="q/1",
        priority=9,
        labels={"zone": "a", "arch": "x86"},
        max_retries=3,
        backoff=jobs_pb2.Backoff(base_ms=10, factor=1.5, cap_ms=100, jitter=jobs_pb2.JITTER_NONE),
        timeout_ms=1000,
        grace_ms=0,
        idempotency_key="k",
        tags=["t 1", "ü"],
    )

    answer = await module_server.jobs.Submit(SubmitRequest(job=spec))
    job = await module_server.job(answer.id)

    for field in ("type", "payload", "queue", "priority", "labels", "max_retries", "timeout_ms", "grace_ms", "tags"):
        assert getattr(job, field) == getattr(spec, field), field
    assert job.backoff == spec.backoff
    assert job.idempotency_key == "k"
    assert (job.status, job.fence, job.attempt) == (jobs_pb2.STATUS_PENDING, 0, 0)
    assert job.available_at == job.created_at


@pytest.mark.asyncio(loop_scope="module")
async def test_what_is_not_given_has_its_default(module_server: RunningServer) -> None:
    job = await module_server.job(await module_server.submit())

    assert (job.queue, job.priority, job.max_retries, job.timeout_ms, job.grace_ms) == ("default", 4, 0, 0, 5000)
    assert job.backoff == jobs_pb2.Backoff(base_ms=1000, factor=2, cap_ms=300_000, jitter=jobs_pb2.JITTER_FULL)
    assert not (job.labels or job.tags or job.idempotency_key or job.HasField("started_at"))


@pytest.mark.asyncio(loop_scope="module")
async def test_zero_is_a_priority_and_not_the_default(module_server: RunningServer) -> None:
    assert (await module_server.job(await module_server.submit(priority=0))).priority == 0


async def test_a_payload_may_be_as_large_as_its_limit_and_not_one_byte_larger(server: RunningServer, sql: Sql) -> None:
    def payload(size: int) -> bytes:
        return b'"' + b"x" * (size - 2) + b'"'

    job_id = await server.submit(payload=payload(limits.PAYLOAD_BYTES))
    too_large = server.jobs.Submit(SubmitRequest(job=noop(payload=payload(limits.PAYLOAD_BYTES + 1))))
    refused = await refusal(too_large)

    assert len((await server.job(job_id)).payload) == limits.PAYLOAD_BYTES
    assert refused.status is grpc.StatusCode.INVALID_ARGUMENT
    assert "payload" in refused.message
    assert "1048577" in refused.message
    assert "1048576" in refused.message
    assert await stored_jobs(sql) == 1


async def test_the_largest_batch_is_stored_in_the_order_sent(server: RunningServer, sql: Sql) -> None:
    batch = [noop(payload=str(number).encode()) for number in range(limits.SUBMIT_JOBS)]

    answer: SubmitBatchResponse = await server.jobs.SubmitBatch(SubmitBatchRequest(jobs=batch))

    assert list(answer.ids) == sorted(set(answer.ids))
    assert len(answer.ids) == limits.SUBMIT_JOBS
    rows = await sql.fetch("SELECT id, payload FROM jobs ORDER BY id")
    assert [(row["id"], int(row["payload"])) for row in rows] == list(
        zip(answer.ids, range(limits.SUBMIT_JOBS), strict=True)
    )


async def test_one_bad_job_refuses_its_whole_batch_by_its_index(server: RunningServer, sql: Sql) -> None:
    batch = [noop() for _ in range(limits.SUBMIT_JOBS)]
    batch[9_876].priority = 10

    refused = await refusal(server.jobs.SubmitBatch(SubmitBatchRequest(jobs=batch)))

    assert refused.status is grpc.StatusCode.INVALID_ARGUMENT
    assert "jobs[9876].priority" in refused.message
    assert "10" in refused.message
    assert refused.trailers["orqestra-stored"] == "no"
    assert await stored_jobs(sql) == 0


async def test_a_batch_that_postgres_refuses_in_its_last_part_is_not_stored_in_part(
    server: RunningServer, sql: Sql
) -> None:
    await sql.execute("ALTER TABLE jobs ADD CHECK (queue <> 'poison')")
    batch = [noop() for _ in range(2500)]
    batch[-1].queue = "poison"

    refused = await refusal(server.jobs.SubmitBatch(SubmitBatchRequest(jobs=batch)))

    assert refused.status is grpc.StatusCode.INVALID_ARGUMENT
    assert await stored_jobs(sql) == 0


async def test_only_the_guilty_caller_of_a_joined_commit_is_refused(server: RunningServer, sql: Sql) -> None:
    await sql.execute("ALTER TABLE jobs ADD CHECK (queue <> 'poison')")
    await server.submit(queue="poisonless")
    async with sql.transaction():
        # The first submit waits for the lock; the others gather behind it and are stored together.
        await sql.execute("LOCK TABLE jobs IN SHARE MODE")
        good = [asyncio.create_task(server.submit()) for _ in range(20)]
        bad = asyncio.create_task(refusal(server.jobs.Submit(SubmitRequest(job=noop(queue="poison")))))
        good += [asyncio.create_task(server.submit()) for _ in range(20)]
        await server.jobs.ListWorkers(
            jobs_pb2.ListWorkersRequest()
        )  # sent last on this channel, answered after all came in

    ids = await asyncio.gather(*good)

    assert len(set(ids)) == 40
    assert (await bad).status is grpc.StatusCode.INVALID_ARGUMENT
    assert await stored_jobs(sql) == 41


async def test_more_than_the_largest_batch_is_refused(server: RunningServer, sql: Sql) -> None:
    batch = [noop()] * (limits.SUBMIT_JOBS + 1)

    refused = await refusal(server.jobs.SubmitBatch(SubmitBatchRequest(jobs=batch)))

    assert refused.status is grpc.StatusCode.INVALID_ARGUMENT
    assert "10001" in refused.message
    assert "10000" in refused.message
    assert await stored_jobs(sql) == 0


@pytest.mark.asyncio(loop_scope="module")
async def test_an_empty_batch_stores_nothing(module_server: RunningServer) -> None:
    answer = await module_server.jobs.SubmitBatch(SubmitBatchRequest())

    assert list(answer.ids) == []


async def test_a_message_beyond_its_limit_is_refused_and_one_within_it_is_stored(
    server: RunningServer, sql: Sql
) -> None:
    megabyte = b'"' + b"x" * (limits.PAYLOAD_BYTES - 100) + b'"'

    fitting = await server.jobs.SubmitBatch(SubmitBatchRequest(jobs=[noop(payload=megabyte)] * 15))
    refused = await refusal(server.jobs.SubmitBatch(SubmitBatchRequest(jobs=[noop(payload=megabyte)] * 17)))

    assert len(fitting.ids) == 15
    assert refused.status is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await stored_jobs(sql) == 15


# The same again


async def test_the_same_key_again_answers_the_first_id(server: RunningServer, sql: Sql) -> None:
    first = await server.submit(idempotency_key="once", payload=b"1")
    again = await server.submit(idempotency_key="once", payload=b"2")

    assert again == first
    assert (await server.job(first)).payload == b"1"
    assert await stored_jobs(sql) == 1


async def test_a_key_twice_in_a_batch_and_one_known_before(server: RunningServer, sql: Sql) -> None:
    known = await server.submit(idempotency_key="known")
    keys = ["new", "known", "", "new", ""]

    answer = await server.jobs.SubmitBatch(SubmitBatchRequest(jobs=[noop(idempotency_key=key) for key in keys]))

    new, second, third, fourth, fifth = answer.ids
    assert (second, fourth) == (known, new)
    assert len({new, known, third, fifth}) == 4
    assert await stored_jobs(sql) == 4


async def test_many_callers_with_one_key_get_one_id(server: RunningServer, sql: Sql) -> None:
    ids = await asyncio.gather(*(server.submit(idempotency_key="hot") for _ in range(50)))

    assert len(set(ids)) == 1
    assert await stored_jobs(sql) == 1


# A stream of batches


async def test_a_stream_answers_batches_in_order_and_outlives_a_refusal(server: RunningServer, sql: Sql) -> None:
    batches = [
        SubmitStreamRequest(number=7, jobs=[noop(), noop()]),
        SubmitStreamRequest(number=3, jobs=[noop(), noop(type="nonsense")]),
        SubmitStreamRequest(number=0, jobs=[]),
        SubmitStreamRequest(number=2**64 - 1, jobs=[noop(idempotency_key="k"), noop(idempotency_key="k")]),
    ]

    async def send() -> AsyncIterator[SubmitStreamRequest]:
        for batch in batches:
            yield batch

    answers = [answer async for answer in server.jobs.SubmitStream(send())]

    assert [answer.number for answer in answers] == [7, 3, 0, 2**64 - 1]
    assert [len(answer.ids) for answer in answers] == [2, 0, 0, 2]
    assert answers[0].ids[0] < answers[0].ids[1] < answers[3].ids[0] == answers[3].ids[1]
    refused = answers[1].refusal
    assert (refused.status, refused.code, refused.stored) == (3, "invalid_input", False)
    assert "jobs[1].type" in refused.message
    assert "nonsense" in refused.message
    assert not any(answers[at].HasField("refusal") for at in (0, 2, 3))
    assert await stored_jobs(sql) == 3


@pytest.mark.asyncio(loop_scope="module")
async def test_a_stream_is_answered_batch_by_batch(module_server: RunningServer) -> None:
    call = module_server.jobs.SubmitStream()
    for number in range(1, 4):
        await call.write(SubmitStreamRequest(number=number, jobs=[noop()]))
        answer = await call.read()
        assert (answer.number, len(answer.ids)) == (number, 1)
    await call.done_writing()

    assert await call.read() is grpc.aio.EOF


async def test_a_server_that_stops_ends_its_streams_and_says_that_it_stored_no_more(
    server_settings: Settings,
) -> None:
    async with running_server(server_settings) as server:
        call = server.jobs.SubmitStream()
        await call.write(SubmitStreamRequest(number=1, jobs=[noop()]))
        assert (await call.read()).number == 1

        server.server.stop()
        refused = await refusal(call.read())

    assert refused.status is grpc.StatusCode.UNAVAILABLE
    assert refused.trailers["orqestra-code"] == "storage_unavailable"
    assert refused.trailers["orqestra-stored"] == "no"


# Too much


@pytest.mark.timeout(60)
async def test_submits_beyond_what_may_wait_are_told_to_come_again(server: RunningServer, sql: Sql) -> None:
    batch = SubmitBatchRequest(jobs=[noop(payload=b'"' + b"x" * (limits.PAYLOAD_BYTES - 2) + b'"')] * 10)
    await server.submit()

    async with sql.transaction():
        await sql.execute("LOCK TABLE jobs IN SHARE MODE")
        calls = [asyncio.ensure_future(server.jobs.SubmitBatch(batch)) for _ in range(7)]
        done, waiting = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED, timeout=20)
        [over] = done
        refused = await refusal(over)

    assert refused.status is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refused.trailers["orqestra-code"] == "overloaded"
    assert refused.trailers["orqestra-stored"] == "no"
    assert int(refused.trailers["orqestra-retry-after-ms"]) > 0
    assert str(limits.WAITING_SUBMIT_BYTES) in refused.message
    assert [len((await call).ids) for call in waiting] == [10] * 6
    assert await stored_jobs(sql) == 61
    assert await server.submit() > 0


@pytest.mark.timeout(60)
async def test_a_stream_that_sends_more_than_may_wait_is_slowed_down_and_not_refused(
    server: RunningServer, sql: Sql
) -> None:
    large = noop(payload=b'"' + b"x" * (limits.PAYLOAD_BYTES - 2) + b'"')
    batches = limits.WAITING_SUBMIT_BYTES // limits.PAYLOAD_BYTES + 10
    first = await server.submit()
    call = server.jobs.SubmitStream()

    async def write() -> None:
        for number in range(batches):
            await call.write(SubmitStreamRequest(number=number, jobs=[large]))
        await call.done_writing()

    async with sql.transaction():
        await sql.execute("LOCK TABLE jobs IN SHARE MODE")
        writing = asyncio.create_task(write())
        await submits_blocked(sql)
        for _ in range(batches):
            await server.job(first)  # time to read everything, were there no bound
        assert not writing.done()
    answers = [answer async for answer in call]

    assert [answer.number for answer in answers] == list(range(batches))
    assert not any(answer.HasField("refusal") for answer in answers)
