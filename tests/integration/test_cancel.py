"""Cancel: the row lock decides every race, and nothing cancelled is claimed, retried or advanced."""

import asyncio

import pytest

from orqestra.engine.cancels import Cancelled
from orqestra.model.decision import Ending, Outcome
from orqestra.model.lifecycle import State
from orqestra.model.report import Verdict
from orqestra.model.retry import RetryPolicy
from tests.support.engine import Engine, failed, ref, report, succeeded

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_waiting_job_ends_at_once(engine: Engine) -> None:
    worker = await engine.connect()
    fresh = await engine.submit()
    delayed = await engine.submit(delay_ms=60_000)
    retrying = await engine.running(worker, retries=RetryPolicy(max_retries=1))
    await engine.settle(failed(retrying))

    cancelled = await engine.cancels.cancel([retrying["id"], fresh, delayed])

    assert [(each.id, each.was, each.state) for each in cancelled] == [
        (retrying["id"], State.RETRYING, State.CANCELLED),
        (fresh, State.PENDING, State.CANCELLED),
        (delayed, State.PENDING, State.CANCELLED),
    ]
    for each in cancelled:
        job = await engine.job(each.id)
        assert (job["state"], job["reason"], job["delayed"]) == (State.CANCELLED, "cancelled", False)
        assert job["finished_at"] >= job["created_at"]
        await engine.make_due(each.id)
        assert await engine.claim(worker, each.id) == []
    assert set(engine.changed[-3:]) == {fresh, delayed, retrying["id"]}
    assert [attempt["outcome"] for attempt in await engine.attempts(retrying["id"])] == [Outcome.FAILED]


async def test_what_has_ended_or_never_was_stays_so(engine: Engine) -> None:
    worker = await engine.connect()
    done, broken = await engine.running(worker), await engine.running(worker)
    await engine.settle(succeeded(done), failed(broken))
    gone = await engine.submit()
    await engine.cancels.cancel([gone])
    before = [await engine.job(job_id) for job_id in (done["id"], broken["id"], gone)]

    answers = await engine.cancels.cancel([done["id"], broken["id"], gone, 2**62, done["id"]])

    assert [(each.was, each.state) for each in answers] == [
        (State.COMPLETED, State.COMPLETED),
        (State.FAILED, State.FAILED),
        (State.CANCELLED, State.CANCELLED),
        (None, None),
        (State.COMPLETED, State.COMPLETED),
    ]
    assert [await engine.job(job_id) for job_id in (done["id"], broken["id"], gone)] == before


async def test_a_running_job_is_marked_and_its_worker_told_once(engine: Engine) -> None:
    worker = await engine.connect()
    row = await engine.running(worker)

    assert await engine.cancels.cancel([row["id"]]) == [Cancelled(id=row["id"], was=State.RUNNING, state=State.RUNNING)]
    first = (await engine.job(row["id"]))["cancel_requested_at"]
    await engine.cancels.cancel([row["id"]])
    await engine.cancels.run_once()

    assert first is not None
    assert (await engine.job(row["id"]))["cancel_requested_at"] == first
    assert worker.peer.cancelled == [ref(row)]


async def test_a_worker_is_told_within_the_next_look_of_what_another_server_cancelled(engine: Engine) -> None:
    worker = await engine.connect()
    row = await engine.running(worker)
    await engine.database.fetch("cancel_jobs", ids=[row["id"]], waiting=[State.PENDING, State.RETRYING])

    await engine.cancels.run_once()

    assert worker.peer.cancelled == [ref(row)]


@pytest.mark.parametrize("ending", list(Ending))
async def test_whatever_a_cancelled_attempt_reports_the_job_is_cancelled(engine: Engine, ending: Ending) -> None:
    worker = await engine.connect()
    row = await engine.running(worker, retries=RetryPolicy(max_retries=5))
    await engine.cancels.cancel([row["id"]])
    await engine.hints()

    assert await engine.settle(report(row, ending, exit_code=3, stdout=b"so far")) == [Verdict.ACCEPTED]

    job, [attempt] = await engine.job(row["id"]), await engine.attempts(row["id"])
    assert job["state"] == State.CANCELLED
    assert (attempt["outcome"], attempt["exit_code"], attempt["stdout"]) == (
        Outcome.COMPLETED if ending is Ending.SUCCEEDED else Outcome(ending),
        3,
        b"so far",
    )
    assert await engine.hints() == {}
    assert await engine.claim(worker, row["id"]) == []
    answer = Verdict.STALE if ending in {Ending.LOST, Ending.RETURNED} else Verdict.DUPLICATE
    assert await engine.settle(report(row, ending)) == [answer]


async def test_a_lost_worker_of_a_cancelled_job_ends_it(engine: Engine) -> None:
    worker = await engine.connect()
    row = await engine.running(worker)
    await engine.cancels.cancel([row["id"]])
    await engine.close(worker)

    await engine.sweep()

    assert (await engine.job(row["id"]))["state"] == State.CANCELLED


async def test_many_are_cancelled_in_one_call(engine: Engine) -> None:
    ids = [await engine.submit() for _ in range(100)]

    answers = await asyncio.gather(engine.cancels.cancel(ids), engine.cancels.cancel(ids[::-1]))

    assert [[each.id for each in answer] for answer in answers] == [ids, ids[::-1]]
    assert {each.state for answer in answers for each in answer} == {State.CANCELLED}


async def test_a_claim_and_a_cancel_at_once_leave_no_job_running_unmarked(engine: Engine) -> None:
    worker = await engine.connect()
    ids = [await engine.submit() for _ in range(200)]

    claimed, cancelled = await asyncio.gather(engine.claim(worker, *ids), engine.cancels.cancel(ids))

    states = {each.id: each.state for each in cancelled}
    for row in claimed:
        assert states[row["id"]] is State.RUNNING
        assert (await engine.job(row["id"]))["cancel_requested_at"] is not None
    assert {states[job_id] for job_id in set(ids) - {row["id"] for row in claimed}} <= {State.CANCELLED}
