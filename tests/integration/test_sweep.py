"""Lost and returned jobs on real SQL: what the sweep brings back, when, and how often."""

import asyncio
from dataclasses import replace

import pytest

from orqestra.engine.expiry import SWEEP_ROWS
from orqestra.model import limits
from orqestra.model.decision import Ending, Outcome
from orqestra.model.lifecycle import State
from orqestra.model.report import Reason, Report, Verdict
from orqestra.model.retry import RetryPolicy
from tests.support.engine import Engine, failed, lose, noop, report, returned, succeeded

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANY_BYTES = bytes(range(256)) + b"\xff\xfe\x00"
ANSWERS = [Verdict.ACCEPTED, Verdict.DUPLICATE, Verdict.STALE, Verdict.UNKNOWN]


# A success


async def test_a_lost_job_goes_back_at_once_then_by_its_backoff_and_fails_the_fifth_time(engine: Engine) -> None:
    worker = await engine.connect()
    row = await engine.running(worker, retries=RetryPolicy(base_ms=60_000, factor=1, cap_ms=60_000))

    for lost in range(1, limits.LOST_MAX):
        worker = await lose(engine, worker, row)
        job = await engine.job(row["id"])
        assert (job["state"], job["lost_count"], job["attempt"]) == (State.PENDING, lost, 0)
        assert (await engine.delay_of(row["id"]) <= 0) or lost > 1
        assert await engine.delay_of(row["id"]) <= 60
        assert job["reason"] == Reason.WORKER_LOST
        await engine.make_due(row["id"])
        [row] = await engine.claim(worker, row["id"])

    await lose(engine, worker, row)
    job = await engine.job(row["id"])
    assert (job["state"], job["lost_count"], job["attempt"]) == (State.FAILED, limits.LOST_MAX, 0)
    assert "lost 5 times" in job["error"]
    assert {(each["number"], each["outcome"]) for each in await engine.attempts(row["id"])} == {(0, Outcome.LOST)}


async def test_a_returned_job_waits_a_little_longer_each_time_and_fails_the_twentieth(engine: Engine) -> None:
    worker = await engine.connect()
    row = await engine.running(worker)

    for count in range(1, limits.RETURNS_MAX):
        await engine.hints()
        assert await engine.settle(returned(row)) == [Verdict.ACCEPTED]
        job = await engine.job(row["id"])
        seconds = [0, 1, 2, 4, 8, 16][count - 1] if count <= 6 else 30
        assert (job["state"], job["return_count"], job["attempt"]) == (State.PENDING, count, 0)
        assert seconds - 1 < await engine.delay_of(row["id"]) <= seconds
        assert job["delayed"] is (seconds > 0)
        assert ((await engine.hints())[row["id"]] > 0) is (seconds > 0)
        await engine.make_due(row["id"])
        [row] = await engine.claim(worker, row["id"])

    await engine.settle(returned(row))
    job = await engine.job(row["id"])
    assert (job["state"], job["return_count"]) == (State.FAILED, limits.RETURNS_MAX)
    assert "undeliverable" in job["error"]


@pytest.mark.parametrize("ending", [Ending.SUCCEEDED, Ending.FAILED])
async def test_a_counted_attempt_begins_the_count_of_returns_anew(engine: Engine, ending: Ending) -> None:
    worker = await engine.connect()
    row = await engine.running(worker, retries=RetryPolicy(max_retries=1))
    await engine.settle(returned(row))
    [row] = await engine.claim(worker, row["id"])

    await engine.settle(report(row, ending))

    assert (await engine.job(row["id"]))["return_count"] == 0


async def test_what_was_replaced_is_returned_and_what_lapsed_is_lost(engine: Engine) -> None:
    for reason, counts in (("lapsed", (1, 0)), ("restarted", (1, 0)), ("replaced", (0, 1)), ("ended", (0, 1))):
        worker = await engine.connect()
        row = await engine.running(worker)
        await lose(engine, worker, row, reason)

        job = await engine.job(row["id"])
        assert (job["lost_count"], job["return_count"]) == counts, reason


async def test_the_sweep_leaves_a_row_to_whoever_settles_it_right_now(engine: Engine) -> None:
    worker = await engine.connect()
    row = await engine.running(worker)
    await engine.close(worker)

    async with engine.database.transaction() as statements, asyncio.timeout(5):
        await statements.fetch("lock_jobs", ids=[row["id"]])
        await engine.sweep()

    assert (await engine.job(row["id"]))["state"] == State.RUNNING
    await engine.sweep()
    assert (await engine.job(row["id"]))["state"] == State.PENDING


async def test_a_page_of_orphans_in_other_hands_does_not_keep_the_sweep_going(engine: Engine) -> None:
    worker = await engine.connect()
    ids = [job_id or 0 for job_id in (await engine.store(*[noop()] * SWEEP_ROWS)).ids]
    assert len(await engine.claim(worker, *ids)) == SWEEP_ROWS
    await engine.close(worker)

    async with engine.database.transaction() as statements, asyncio.timeout(5):
        await statements.fetch("lock_jobs", ids=ids)
        await engine.sweep()

    await engine.sweep()
    [row] = await engine.sql("SELECT count(*) FROM jobs WHERE state = 'pending' AND id = ANY($1::bigint[])", ids)
    assert row[0] == SWEEP_ROWS


async def test_more_orphans_than_a_page_are_swept_in_one_go(engine: Engine) -> None:
    worker = await engine.connect()
    ids = [job_id or 0 for job_id in (await engine.store(*[noop()] * (SWEEP_ROWS + 1))).ids]
    assert len(await engine.claim(worker, *ids[:SWEEP_ROWS], ids[-1])) == SWEEP_ROWS + 1
    await engine.close(worker)

    await engine.sweep()

    [row] = await engine.sql("SELECT count(*) FROM jobs WHERE state = 'running' AND id = ANY($1::bigint[])", ids)
    assert row[0] == 0


async def test_the_sweep_sends_no_answers(engine: Engine) -> None:
    """Its reports are a server's own. The stream of a lapsed session may still stand: an answer would be taken
    as one to the worker's result, which is yet to come."""
    worker = await engine.connect()
    row, held = await engine.running(worker), await engine.running(worker)
    await engine.close(worker)

    async with engine.database.transaction() as statements, asyncio.timeout(5):
        await statements.fetch("lock_jobs", ids=[held["id"]])
        await engine.sweep()

    assert (await engine.job(row["id"]))["state"] == State.PENDING
    assert worker.peer.answers == []


# Data that Postgres refuses


async def test_a_result_that_cannot_be_stored_fails_its_job_and_no_other(engine: Engine) -> None:
    worker = await engine.connect()
    rows = [await engine.running(worker) for _ in range(4)]
    reports: list[Report] = [succeeded(row) for row in rows]
    reports[1] = replace(reports[1], exit_code=2**40)
    reports[2] = failed(rows[2], error="a\0b")

    assert sorted(await engine.settle(*reports)) == [Verdict.ACCEPTED] * 4

    jobs = [await engine.job(row["id"]) for row in rows]
    assert [job["state"] for job in jobs] == [State.COMPLETED, State.FAILED, State.FAILED, State.COMPLETED]
    assert [job["reason"] for job in jobs[1:3]] == [Reason.RESULT_REJECTED] * 2
