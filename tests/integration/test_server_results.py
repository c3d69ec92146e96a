"""The ends of attempts over the wire: verdicts, retries, returns, cancels, output stored ahead."""

import asyncio
from datetime import timedelta
from typing import Any

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
)
from orqestra.v1.worker_pb2 import AttemptRef, HeldAttempt, Results, WorkerMessage
from tests.support.raw_worker import Verdict, good, held
from tests.support.server import RunningServer, Sql

FAILED: dict[str, Any] = {"ok": False, "exit_code": 3}
# A field that none of our messages has.
LATER = b"\xa2\x06\x05later"
AT_ONCE = jobs_pb2.Backoff(base_ms=0)


async def test_a_result_is_stored_byte_by_byte(server: RunningServer) -> None:
    job_id = await server.submit()
    everything = bytes(range(256))
    async with server.worker(name="me") as worker:
        stream = await worker.open()
        [job] = await stream.assigned(1)
        verdicts = await stream.finish(
            [job],
            stdout=everything,
            stderr=b"\0",
            stdout_bytes=256,
            stderr_bytes=1,
            wall_us=5,
            user_us=6,
            system_us=7,
            max_rss_kb=8,
        )

    assert verdicts == [Verdict.VERDICT_ACCEPTED]
    found = await server.job(job_id)
    assert (found.status, found.exit_code, found.reason, found.worker) == (STATUS_COMPLETED, 0, "exited", "me")
    assert (found.stdout, found.stderr, found.stdout_bytes) == (everything, b"\0", 256)
    [attempt] = found.attempts
    assert (attempt.number, attempt.fence, attempt.outcome) == (1, 1, "completed")
    assert (attempt.wall_us, attempt.user_us, attempt.system_us, attempt.max_rss_kb) == (5, 6, 7, 8)
    assert attempt.started_at.ToDatetime() <= attempt.finished_at.ToDatetime()


async def test_the_same_result_again_is_a_duplicate(server: RunningServer) -> None:
    job_id = await server.submit()
    async with server.worker() as worker:
        stream = await worker.open()
        [job] = await stream.assigned(1)
        twice = await stream.report([good(job.attempt, stdout=b"1"), good(job.attempt, stdout=b"2")])
        again = await stream.finish([job], stdout=b"3")
        second = await worker.open(held=[held(job, HeldAttempt.PHASE_FINISHED)])
        after_reconnect = await second.finish([job], stdout=b"4")

    assert sorted(twice) == [Verdict.VERDICT_ACCEPTED, Verdict.VERDICT_DUPLICATE]
    assert again == after_reconnect == [Verdict.VERDICT_DUPLICATE]
    assert (await server.job(job_id)).stdout == b"1"


async def test_what_a_later_worker_says_beside_its_results_is_passed_over(server: RunningServer) -> None:
    await server.submit_many(2)
    async with server.worker(slots=2) as worker:
        stream = await worker.open()
        jobs = await stream.assigned(2)
        first, second = (WorkerMessage(results=Results(results=[good(job.attempt)])) for job in jobs)

        await stream.send(first.SerializeToString() + LATER)
        await stream.send(second.SerializeToString() + first.SerializeToString())
        acks = [*(await stream.next("result_acks")).acks]
        while len(acks) < 3:
            acks += (await stream.next("result_acks")).acks

    accepted = {ack.attempt.job_id for ack in acks if ack.verdict == Verdict.VERDICT_ACCEPTED}
    assert accepted == {job.attempt.job_id for job in jobs}


async def test_results_that_fit_nothing_get_their_verdict(server: RunningServer) -> None:
    await server.submit()
    async with server.worker() as worker:
        stream = await worker.open()
        [job] = await stream.assigned(1)
        attempt = job.attempt
        wrong = [
            AttemptRef(job_id=attempt.job_id, fence=attempt.fence, token=attempt.token ^ 1),
            AttemptRef(job_id=attempt.job_id, fence=attempt.fence + 1, token=attempt.token),
            AttemptRef(job_id=attempt.job_id, fence=0, token=0),
            AttemptRef(job_id=attempt.job_id, fence=-(2**63), token=2**63 - 1),
            AttemptRef(job_id=attempt.job_id + 1000, fence=1, token=1),
            AttemptRef(job_id=-1, fence=1, token=1),
            AttemptRef(),
        ]

        verdicts = await stream.report([good(each) for each in wrong])

        assert verdicts == [Verdict.VERDICT_STALE] * 4 + [Verdict.VERDICT_UNKNOWN] * 3
        # And mixed with the right one, in one message, that one is stored.
        mixed = await stream.report([good(wrong[0]), good(attempt), good(wrong[4], ok=False)])
        assert mixed == [Verdict.VERDICT_STALE, Verdict.VERDICT_ACCEPTED, Verdict.VERDICT_UNKNOWN]


async def test_a_failure_is_retried_until_no_retry_is_left(server: RunningServer) -> None:
    job_id = await server.submit(max_retries=2, backoff=AT_ONCE)
    async with server.worker() as worker:
        stream = await worker.open()
        attempts = []
        for number in (1, 2, 3):
            [job] = await stream.assigned(1)
            assert (job.attempt_number, job.attempt.fence) == (number, number)
            result = {**FAILED, "stderr": b"%d" % number, "error": "no\0luck"}
            assert await stream.finish([job], **result) == [Verdict.VERDICT_ACCEPTED]
            attempts.append(job)
        late = await stream.finish([attempts[0]])

    found = await server.until(job_id)
    assert late == [Verdict.VERDICT_DUPLICATE]
    assert (found.status, found.attempt, found.exit_code, found.stderr) == (STATUS_FAILED, 3, 3, b"3")
    assert [(each.number, each.outcome, each.stderr) for each in found.attempts] == [
        (1, "failed", b"1"),
        (2, "failed", b"2"),
        (3, "failed", b"3"),
    ]
    assert "\0" not in found.error


async def test_a_retry_waits_for_its_backoff(server: RunningServer) -> None:
    job_id = await server.submit(max_retries=1, backoff=jobs_pb2.Backoff(base_ms=60_000))
    async with server.worker() as worker:
        stream = await worker.open()
        await stream.finish(await stream.assigned(1), **FAILED)
        job = await server.job(job_id)

        assert job.status == STATUS_RETRYING
        delay = job.available_at.ToDatetime() - job.attempts[0].finished_at.ToDatetime()
        assert timedelta(0) <= delay <= timedelta(seconds=61)


async def test_rules_and_counts_of_processes_come_back_as_they_are_kept(server: RunningServer) -> None:
    rules = jobs_pb2.RetryRules(on=["signal:KILL", "10-20", "timeout"], never=["15"])
    even = jobs_pb2.Backoff(base_ms=0, jitter=jobs_pb2.JITTER_EQUAL)
    job_id = await server.submit(max_retries=5, backoff=even, retry=rules)
    ends: list[dict[str, Any]] = [
        {"ok": False, "reason": "killed_after_grace", "exit_signal": 9, "killed_processes": 2},
        {"ok": False, "exit_code": 75},
        {"ok": False, "exit_code": 15, "left_processes": 1},
    ]
    async with server.worker() as worker:
        stream = await worker.open()
        for end in ends:
            assert await stream.finish(await stream.assigned(1), **end) == [Verdict.VERDICT_ACCEPTED]

    job = await server.job(job_id)
    assert (job.status, job.error, job.attempt) == (STATUS_FAILED, "exit code 15 is not retried", 3)
    assert (list(job.retry.on), list(job.retry.never)) == (["10-20", "signal:9", "timeout"], ["15"])
    assert (job.backoff.jitter, job.left_processes) == (jobs_pb2.JITTER_EQUAL, 1)
    assert [(each.reason, each.killed_processes, each.left_processes) for each in job.attempts] == [
        ("killed_after_grace", 2, 0),
        ("exited", 0, 0),
        ("exited", 0, 1),
    ]
    [listed] = (await server.jobs.ListJobs(jobs_pb2.ListJobsRequest(limit=1))).jobs
    assert (listed.id, listed.left_processes, list(listed.retry.never)) == (job_id, 1, ["15"])


async def test_a_job_handed_back_is_not_counted_and_comes_again_later_each_time(server: RunningServer) -> None:
    job_id = await server.submit()
    async with server.worker() as worker:
        stream = await worker.open()
        delays = []
        for number in (1, 2, 3):
            [job] = await stream.assigned(1)
            assert (job.attempt_number, job.attempt.fence) == (1, number)
            await stream.give_back([job], "no\0memory")
            while (found := await server.job(job_id)).returned < number:
                await asyncio.sleep(0.01)
            returned = found.attempts[-1]
            assert (returned.number, returned.outcome, returned.reason) == (0, "returned", "returned")
            delays.append(found.available_at.ToDatetime() - returned.finished_at.ToDatetime())
        # Too late: it was handed back.
        assert await stream.finish([job]) == [Verdict.VERDICT_STALE]

    assert (found.status, found.attempt) == (STATUS_PENDING, 0)
    assert [round(delay.total_seconds(), 1) for delay in delays] == [0, 1, 2]


@pytest.mark.parametrize("ok", [True, False])
async def test_a_running_job_that_is_cancelled_is_told_to_its_worker_and_ends_cancelled(
    server: RunningServer, *, ok: bool
) -> None:
    job_id = await server.submit(max_retries=5)
    async with server.worker() as worker:
        stream = await worker.open()
        [job] = await stream.assigned(1)

        [told] = await server.cancel(job_id)

        assert (told.outcome, told.status) == (CancelledJob.OUTCOME_STOPPING, STATUS_RUNNING)
        assert list((await stream.next("cancel", 0.5)).attempts) == [job.attempt]
        assert (await server.job(job_id)).cancel_requested
        # Told once on a stream, and again on the next one.
        await stream.none("cancel", 1.2 if ok else 0.0)
        second = await worker.open(held=[held(job)])
        assert list((await second.next("cancel", 1.5)).attempts) == [job.attempt]
        assert await second.finish([job], ok=ok, reason="cancelled", exit_signal=15) == [Verdict.VERDICT_ACCEPTED]
        await second.none("assign", 0.2)
    found = await server.job(job_id)
    assert (found.status, found.attempt) == (STATUS_CANCELLED, 1)
    assert found.attempts[0].outcome == ("completed" if ok else "failed")


async def test_a_cancelled_job_that_is_handed_back_or_lost_does_not_run_again(server: RunningServer) -> None:
    ids = await server.submit_many(2)
    async with server.worker(slots=2) as worker:
        stream = await worker.open()
        back, lost = await stream.assigned(2)
        await server.cancel(*ids)
        await stream.give_back([back])
        assert (await server.until(back.attempt.job_id)).status == STATUS_CANCELLED
        second = await worker.open(incarnation="7d444840-9dc0-11d1-b245-5ffdce74fad2")
        assert (await server.until(lost.attempt.job_id)).status == STATUS_CANCELLED
        await second.none("assign", 0.2)


async def test_large_output_is_stored_ahead_of_its_result(server: RunningServer) -> None:
    job_id = await server.submit()
    pieces = {0: b"a" * 65536, 65536: b"b" * 65536, 1_000_000: b"end"}
    async with server.worker() as worker:
        stream = await worker.open()
        [job] = await stream.assigned(1)
        for offset, data in pieces.items():
            assert await stream.store(job.attempt, jobs_pb2.STREAM_STDOUT, offset, data)
        assert await stream.store(job.attempt, jobs_pb2.STREAM_STDOUT, 0, pieces[0])
        stale = AttemptRef(job_id=job_id, fence=9, token=1)
        assert not await stream.store(stale, jobs_pb2.STREAM_STDOUT, 0, b"x")
        assert not await stream.store(AttemptRef(job_id=99, fence=1, token=1), jobs_pb2.STREAM_STDERR, 0, b"x")
        await stream.finish([job], stdout_stored=True, stdout_bytes=1_000_003, truncated=True, stderr=b"small")
        assert not await stream.store(job.attempt, jobs_pb2.STREAM_STDERR, 0, b"too late")

    found = await server.job(job_id)
    assert found.stdout == b"".join(pieces.values())
    assert (found.stderr, found.stdout_bytes, found.truncated) == (b"small", 1_000_003, True)


async def test_a_result_that_postgres_refuses_fails_its_job_and_no_other(server: RunningServer, sql: Sql) -> None:
    await sql.execute("ALTER TABLE jobs ADD CHECK (stdout <> 'poison')")
    ids = await server.submit_many(20)
    async with server.worker(slots=20) as worker:
        stream = await worker.open()
        jobs = await stream.assigned(20)
        results = [good(job.attempt, stdout=b"poison" if job is jobs[7] else b"fine") for job in jobs]

        verdicts = await stream.report(results)

    assert verdicts == [Verdict.VERDICT_ACCEPTED] * 20
    found = {job_id: await server.job(job_id) for job_id in ids}
    bad = found.pop(jobs[7].attempt.job_id)
    assert (bad.status, bad.reason) == (STATUS_FAILED, "result_rejected")
    assert "poison" not in bad.error or "check" in bad.error
    assert {job.status for job in found.values()} == {STATUS_COMPLETED}


@pytest.mark.parametrize(
    "result", [{"reason": "nonsense"}, {"stdout": b"x" * 8193}, {"stdout_bytes": -1}, {"wall_us": -(2**63)}], ids=str
)
async def test_a_result_that_makes_no_sense_fails_its_job_and_the_stream_goes_on(
    server: RunningServer, result: dict[str, Any]
) -> None:
    job_id = await server.submit()
    async with server.worker() as worker:
        stream = await worker.open()
        assert await stream.finish(await stream.assigned(1), **result) == [Verdict.VERDICT_ACCEPTED]
        next_id = await server.submit()
        await stream.finish(await stream.assigned(1))

    bad = await server.job(job_id)
    assert (bad.status, bad.reason) == (STATUS_FAILED, "result_rejected")
    assert "the server refuses the result" in bad.error
    assert (await server.job(next_id)).status == STATUS_COMPLETED


async def test_many_results_in_one_message(server: RunningServer) -> None:
    await server.submit_many(500)
    async with server.worker(slots=500) as worker:
        stream = await worker.open()
        jobs = await stream.assigned(500)
        await stream.send(results=Results(results=[good(job.attempt) for job in jobs]))
        accepted = 0
        while accepted < 500:
            acks = (await stream.next("result_acks")).acks
            assert {ack.verdict for ack in acks} == {Verdict.VERDICT_ACCEPTED}
            accepted += len(acks)
