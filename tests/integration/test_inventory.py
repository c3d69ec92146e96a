"""The question what a worker holds: what is not there goes back, once all that came before is settled."""

from collections.abc import AsyncIterator, Iterable

import pytest
import pytest_asyncio

from orqestra.engine import inventory
from orqestra.v1.jobs_pb2 import STATUS_COMPLETED
from orqestra.v1.worker_pb2 import Assignment, AssignNack, AttemptRef, Held, HeldAttempt, Results
from tests.support.metrics import repairs
from tests.support.raw_worker import RawStream, Verdict, good, held
from tests.support.server import RunningServer, Sql, running_server, settings_for

PERIOD_SECONDS = 0.3


@pytest_asyncio.fixture
async def asking(
    database: str, redis_url: str, redis_namespace: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[RunningServer]:
    """A server that asks all the time."""
    monkeypatch.setattr(inventory, "QUESTION_SECONDS", PERIOD_SECONDS)
    monkeypatch.setattr(inventory, "TICK_SECONDS", PERIOD_SECONDS)
    async with running_server(settings_for(database, redis_url, redis_namespace)) as server:
        yield server


async def answer(stream: RawStream, jobs: Iterable[Assignment] = (), *, seq: int = 0) -> None:
    """Wait for the next question and answer that these are held; `seq` 0 is the question's own."""
    question = await stream.next("list_held")
    await stream.send(held=Held(seq=seq or question.seq, held=[held(job) for job in jobs]))


async def test_a_true_answer_changes_nothing(asking: RunningServer) -> None:
    async with asking.worker(slots=3) as worker:
        stream = await worker.open()
        await asking.submit_many(3)
        jobs = await stream.assigned(3)

        await answer(stream, jobs)
        await answer(stream, jobs)
        await answer(stream, jobs)

        assert await stream.finish(jobs) == [Verdict.VERDICT_ACCEPTED] * 3
        assert not stream.has("assign")
        assert await repairs(asking.http) == {}


async def test_what_is_not_held_goes_back_uncounted(asking: RunningServer, sql: Sql) -> None:
    async with asking.worker(slots=2) as worker:
        stream = await worker.open()
        await asking.submit_many(2)
        kept, missing = await stream.assigned(2)

        await answer(stream, [kept])

        [again] = await stream.assigned(1)
        assert again.attempt.job_id == missing.attempt.job_id
        assert again.attempt.fence == missing.attempt.fence + 1
        assert await stream.finish([kept, again]) == [Verdict.VERDICT_ACCEPTED] * 2
        assert await repairs(asking.http) == {"not_held": 1}
    row = await sql.fetchrow("SELECT number, outcome, reason FROM attempts")
    assert row is not None
    assert tuple(row) == (0, "returned", "not_delivered")


async def test_what_came_before_the_answer_is_settled_first(asking: RunningServer) -> None:
    async with asking.worker(slots=3) as worker:
        stream = await worker.open()
        await asking.submit_many(3)
        good_one, bad_one, nacked = await stream.assigned(3)
        question = await stream.next("list_held")

        results = [good(good_one.attempt), good(bad_one.attempt, ok=False, exit_code=1)]
        await stream.send(results=Results(results=results))
        await stream.send(assign_nack=AssignNack(attempts=[nacked.attempt], reason="draining"))
        await stream.send(held=Held(seq=question.seq))

        [again] = await stream.assigned(1)
        assert again.attempt.job_id == nacked.attempt.job_id
        await answer(stream, [again])
        assert (await asking.until(good_one.attempt.job_id)).attempt == 1
        assert (await asking.until(bad_one.attempt.job_id)).exit_code == 1
        assert await repairs(asking.http) == {}


async def test_what_was_assigned_after_the_question_is_not_missed(asking: RunningServer) -> None:
    async with asking.worker(slots=1) as worker:
        stream = await worker.open()
        question = await stream.next("list_held")
        job_id = await asking.submit()
        jobs = await stream.assigned(1)

        await stream.send(held=Held(seq=question.seq))

        await answer(stream, jobs)
        await answer(stream, jobs)
        assert await stream.finish(jobs) == [Verdict.VERDICT_ACCEPTED]
        assert (await asking.job(job_id)).status == STATUS_COMPLETED
        assert await repairs(asking.http) == {}


async def test_an_answer_to_an_older_question_says_nothing(asking: RunningServer) -> None:
    async with asking.worker(slots=1) as worker:
        stream = await worker.open()
        old = await stream.next("list_held")
        await asking.submit()
        jobs = await stream.assigned(1)
        await answer(stream, seq=old.seq)
        await answer(stream, seq=old.seq + 1000)
        await answer(stream, jobs)

        assert await stream.finish(jobs) == [Verdict.VERDICT_ACCEPTED]
        assert await repairs(asking.http) == {}


async def test_what_is_held_but_not_its_own_ends_the_stream_and_is_revoked_by_the_next(asking: RunningServer) -> None:
    async with asking.worker() as worker:
        stream = await worker.open()
        job_id = await asking.submit(queue="elsewhere")
        strange = HeldAttempt(attempt=AttemptRef(job_id=job_id, fence=1, token=2), phase=HeldAttempt.PHASE_RUNNING)
        question = await stream.next("list_held")
        await stream.send(held=Held(seq=question.seq, held=[strange]))

        assert "not its own" in (await stream.next("goodbye")).reason
        second = await worker.open(held=[strange])
        assert list(second.welcome.revoke) == [strange.attempt]
        assert await repairs(asking.http) == {"not_ours": 1}


async def test_one_whose_result_is_still_to_come_is_held(asking: RunningServer) -> None:
    async with asking.worker() as worker:
        stream = await worker.open()
        await asking.submit()
        [job] = await stream.assigned(1)
        question = await stream.next("list_held")
        await stream.send(held=Held(seq=question.seq, held=[held(job, HeldAttempt.PHASE_FINISHED)]))
        await answer(stream, [job])

        assert await stream.finish([job]) == [Verdict.VERDICT_ACCEPTED]
        assert await repairs(asking.http) == {}


async def test_a_finished_one_that_is_not_its_own_waits_for_its_verdict(asking: RunningServer) -> None:
    async with asking.worker() as worker:
        stream = await worker.open()
        attempt = AttemptRef(job_id=1_000_000, fence=1, token=2)
        question = await stream.next("list_held")
        finished = HeldAttempt(attempt=attempt, phase=HeldAttempt.PHASE_FINISHED)
        await stream.send(held=Held(seq=question.seq, held=[finished]))

        assert await stream.report([good(attempt)]) == [Verdict.VERDICT_UNKNOWN]
        assert await repairs(asking.http) == {}


async def test_a_job_that_the_server_itself_forgot_goes_back_after_a_second_look(
    asking: RunningServer, sql: Sql
) -> None:
    async with asking.worker(slots=1) as worker:
        stream = await worker.open()
        job_id = await asking.submit(queue="elsewhere")
        asked_before = await stream.next("list_held")
        await sql.execute(
            "UPDATE jobs SET state = 'running', fence = fence + 1, token = 7, session_id = $2, started_at = now() "
            "WHERE id = $1",
            *(job_id, stream.welcome.session_id),
        )
        await stream.send(held=Held(seq=asked_before.seq))
        await answer(stream)
        asked_again = await stream.next("list_held")
        # It might have been on its way when it was first seen.
        assert await sql.fetchval("SELECT state FROM jobs WHERE id = $1", job_id) == "running"
        await stream.send(held=Held(seq=asked_again.seq))

        verdicts = (await stream.next("result_acks")).acks
        assert [ack.attempt.job_id for ack in verdicts] == [job_id]
        assert await sql.fetchval("SELECT state FROM jobs WHERE id = $1", job_id) == "pending"
        assert await repairs(asking.http) == {"not_held": 1}
