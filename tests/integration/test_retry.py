"""Retry by an operator: back to pending with a new budget, while the fence goes on."""

import pytest

from orqestra.model import limits
from orqestra.model.errors import NotFound, Refused
from orqestra.model.lifecycle import State
from orqestra.model.report import Verdict
from orqestra.model.retry import RetryPolicy
from tests.support.engine import Engine, failed, returned, succeeded

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLEARED = (
    *("cancel_requested_at", "finished_at", "started_at", "exit_code", "exit_signal", "reason", "error"),
    *("stdout", "stderr", "stdout_bytes", "stderr_bytes", "truncated", "usage_us"),
)


async def test_a_failed_job_starts_anew_with_a_hint_and_keeps_its_attempts(engine: Engine) -> None:
    worker = await engine.connect()
    row = await engine.running(worker, retries=RetryPolicy(max_retries=1, base_ms=0))
    await engine.settle(returned(row))
    for _ in range(2):
        await engine.make_due(row["id"])
        [row] = await engine.claim(worker, row["id"])
        await engine.settle(failed(row, error="no", exit_code=3))
    assert (await engine.job(row["id"]))["state"] == State.FAILED
    await engine.hints()

    await engine.cancels.retry(row["id"])

    job = await engine.job(row["id"])
    assert (job["state"], job["delayed"], job["fence"]) == (State.PENDING, False, 3)
    assert (job["attempt"], job["lost_count"], job["return_count"]) == (0, 0, 0)
    assert [job[column] for column in CLEARED] == [None] * len(CLEARED)
    assert await engine.hints() == {row["id"]: 0}
    assert engine.changed[-1] == row["id"]
    [again] = await engine.claim(worker, row["id"])
    assert (again["fence"], again["attempt"]) == (4, 0)
    await engine.settle(failed(again))
    assert (await engine.job(row["id"]))["state"] == State.RETRYING
    assert [attempt["fence"] for attempt in await engine.attempts(row["id"])] == [1, 2, 3, 4]


async def test_a_cancelled_job_can_be_retried_and_runs(engine: Engine) -> None:
    worker = await engine.connect()
    waiting, row = await engine.submit(), await engine.running(worker)
    await engine.cancels.cancel([waiting, row["id"]])
    await engine.settle(succeeded(row))

    for job_id in (waiting, row["id"]):
        await engine.cancels.retry(job_id)
        [again] = await engine.claim(worker, job_id)
        assert await engine.settle(succeeded(again)) == [Verdict.ACCEPTED]
        assert (await engine.job(job_id))["state"] == State.COMPLETED


async def test_a_late_result_of_before_the_retry_is_not_taken(engine: Engine) -> None:
    worker = await engine.connect()
    row = await engine.running(worker)
    await engine.settle(failed(row))
    await engine.cancels.retry(row["id"])

    assert await engine.settle(succeeded(row)) == [Verdict.DUPLICATE]
    [again] = await engine.claim(worker, row["id"])
    assert await engine.settle(succeeded(row)) == [Verdict.DUPLICATE]
    assert await engine.settle(succeeded(again)) == [Verdict.ACCEPTED]


async def test_a_job_that_lost_its_workers_gets_them_all_again(engine: Engine) -> None:
    worker = await engine.connect()
    job_id = await engine.submit()
    for _ in range(limits.LOST_MAX):
        await engine.make_due(job_id)
        await engine.claim(worker, job_id)
        await engine.close(worker)
        await engine.sweep()
        await engine.connect(worker)
    assert (await engine.job(job_id))["state"] == State.FAILED

    await engine.cancels.retry(job_id)

    await engine.claim(worker, job_id)
    await engine.close(worker)
    await engine.sweep()
    assert ((await engine.job(job_id))["state"], (await engine.job(job_id))["lost_count"]) == (State.PENDING, 1)


async def test_what_has_not_failed_is_refused_and_says_so(engine: Engine) -> None:
    worker = await engine.connect()
    row, waiting = await engine.running(worker), await engine.submit()

    with pytest.raises(Refused, match=f"job {row['id']} is running; only a job that is failed or cancelled"):
        await engine.cancels.retry(row["id"])
    with pytest.raises(Refused, match="is pending"):
        await engine.cancels.retry(waiting)
    await engine.settle(succeeded(row))
    with pytest.raises(Refused, match="is completed"):
        await engine.cancels.retry(row["id"])
    with pytest.raises(NotFound, match=f"no job {2**62}"):
        await engine.cancels.retry(2**62)
