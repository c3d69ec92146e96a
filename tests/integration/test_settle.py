"""Settlement: every write by a worker is fenced, every report gets its answer, every end its place."""

import asyncio
from dataclasses import replace

import pytest

from orqestra.model import limits
from orqestra.model.decision import Ending, Outcome
from orqestra.model.lifecycle import State
from orqestra.model.report import AttemptRef, Reason, Report, Verdict
from orqestra.model.retry import RetryPolicy
from orqestra.store.database import Row
from tests.support.engine import Engine, Worker, failed, noop, report, returned, succeeded

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANY_BYTES = bytes(range(256)) + b"\xff\xfe\x00"
ANSWERS = [Verdict.ACCEPTED, Verdict.DUPLICATE, Verdict.STALE, Verdict.UNKNOWN]


async def lose(engine: Engine, worker: Worker, row: Row, reason: str = "lapsed") -> Worker:
    """Let the worker of a claimed row vanish and the sweep find it; return the worker on a new stream."""
    await engine.close(worker, reason)
    await engine.sweep()
    return await engine.connect(worker)


# A success


async def test_a_success_is_stored_byte_for_byte(engine: Engine) -> None:
    row = await engine.running(await engine.connect())

    verdicts = await engine.settle(
        succeeded(
            row,
            stdout=ANY_BYTES,
            stderr=ANY_BYTES[::-1],
            stdout_bytes=258,
            stderr_bytes=999,
            truncated=True,
            wall_us=1,
            user_us=2,
            system_us=3,
            max_rss_kb=4,
        )
    )

    job = await engine.job(row["id"])
    assert verdicts == [Verdict.ACCEPTED]
    assert (job["state"], job["attempt"], job["exit_code"], job["reason"]) == (State.COMPLETED, 1, 0, "exited")
    assert (job["stdout"], job["stderr"]) == (ANY_BYTES, ANY_BYTES[::-1])
    assert (job["stdout_bytes"], job["stderr_bytes"], job["truncated"]) == (258, 999, True)
    assert job["usage_us"] == [1, 2, 3, 4]
    assert job["finished_at"] >= job["started_at"]
    assert await engine.attempts(row["id"]) == []
    assert engine.changed[-1] == row["id"]


async def test_a_thousand_successes_are_settled_at_once(engine: Engine) -> None:
    worker = await engine.connect()
    ids = [job_id or 0 for job_id in (await engine.store(*[noop()] * 1000)).ids]
    rows = await engine.claim(worker, *ids)

    assert await engine.settle(*map(succeeded, rows)) == [Verdict.ACCEPTED] * 1000

    [row] = await engine.sql("SELECT count(*) AS jobs FROM jobs WHERE state = 'completed' AND id = ANY($1)", ids)
    assert row["jobs"] == 1000


# Verdicts


@pytest.mark.parametrize("ending", [Ending.SUCCEEDED, Ending.FAILED])
async def test_the_same_result_again_is_a_duplicate(engine: Engine, ending: Ending) -> None:
    row = await engine.running(await engine.connect())

    assert await engine.settle(report(row, ending)) == [Verdict.ACCEPTED]
    assert await engine.settle(report(row, ending)) == [Verdict.DUPLICATE]
    assert await engine.settle(report(row, ending), report(row, ending)) == [Verdict.DUPLICATE] * 2


@pytest.mark.parametrize("ending", [Ending.SUCCEEDED, Ending.FAILED])
async def test_the_same_result_twice_in_one_batch_is_stored_once(engine: Engine, ending: Ending) -> None:
    row = await engine.running(await engine.connect(), retries=RetryPolicy(max_retries=1))

    verdicts = await engine.settle(report(row, ending), report(row, ending))

    assert verdicts[0] is Verdict.ACCEPTED
    assert set(verdicts[1:]) <= {Verdict.ACCEPTED, Verdict.DUPLICATE}
    assert (await engine.job(row["id"]))["attempt"] == 1


@pytest.mark.parametrize("first", [Ending.SUCCEEDED, Ending.FAILED])
async def test_two_different_ends_of_one_attempt_leave_one(engine: Engine, first: Ending) -> None:
    row = await engine.running(await engine.connect(), retries=RetryPolicy(max_retries=1))
    second = Ending.FAILED if first is Ending.SUCCEEDED else Ending.SUCCEEDED

    verdicts = await engine.settle(report(row, first), report(row, second))

    assert sorted(verdicts) == [Verdict.ACCEPTED, Verdict.DUPLICATE]
    assert (await engine.job(row["id"]))["attempt"] == 1


@pytest.mark.parametrize("ending", list(Ending))
async def test_a_job_that_nobody_knows_is_unknown(engine: Engine, ending: Ending) -> None:
    row = await engine.running(await engine.connect())
    stranger = replace(report(row, ending), attempt=AttemptRef(2**62, 1, row["token"]))

    assert await engine.settle(stranger) == [Verdict.UNKNOWN]


@pytest.mark.parametrize("ending", list(Ending))
@pytest.mark.parametrize("change", [{"fence": 0}, {"fence": 2}, {"token": 98}])
async def test_another_fence_or_token_is_stale_and_changes_nothing(
    engine: Engine, ending: Ending, change: dict[str, int]
) -> None:
    row = await engine.running(await engine.connect())
    attempt = AttemptRef(row["id"], change.get("fence", row["fence"]), change.get("token", row["token"]))

    assert await engine.settle(replace(report(row, ending), attempt=attempt)) == [Verdict.STALE]
    assert (await engine.job(row["id"]))["state"] == State.RUNNING


@pytest.mark.parametrize("ending", list(Ending))
async def test_a_result_on_another_session_gets_no_answer_and_changes_nothing(engine: Engine, ending: Ending) -> None:
    row = await engine.running(await engine.connect())
    other = await engine.connect()

    assert await engine.settle(report(row, ending, session_id=other.session_id)) == []
    assert (await engine.job(row["id"]))["state"] == State.RUNNING
    assert await engine.settle(report(row, ending)) == [Verdict.ACCEPTED]


@pytest.mark.parametrize("change", ["token", "session"])
async def test_a_forged_result_is_not_accepted_beside_the_real_one(engine: Engine, change: str) -> None:
    row = await engine.running(await engine.connect())
    other = await engine.connect()
    real = succeeded(row)
    forged = (
        replace(real, attempt=AttemptRef(row["id"], row["fence"], 1), session_id=other.session_id)
        if change == "token"
        else replace(real, session_id=other.session_id)
    )

    await engine.settle(forged, real)

    assert [verdict for _, verdict in other.peer.answers if verdict is Verdict.ACCEPTED] == []


async def test_a_result_of_an_attempt_that_was_swept_is_stale(engine: Engine) -> None:
    for reason in ("lapsed", "restarted", "replaced", "ended"):
        worker = await engine.connect()
        row = await engine.running(worker)
        worker = await lose(engine, worker, row, reason)

        late = succeeded(row, session_id=worker.session_id)
        assert await engine.settle(late) == [Verdict.STALE], reason
        [again] = await engine.claim(worker, row["id"])
        assert await engine.settle(late) == [Verdict.STALE], reason
        assert await engine.settle(succeeded(again)) == [Verdict.ACCEPTED], reason
        assert await engine.settle(late) == [Verdict.STALE], reason


async def test_a_result_is_accepted_until_the_sweep_even_on_a_closed_session(engine: Engine) -> None:
    worker = await engine.connect()
    row = await engine.running(worker)
    await engine.close(worker)

    assert await engine.settle(succeeded(row)) == [Verdict.ACCEPTED]
    await engine.sweep()
    assert (await engine.job(row["id"]))["state"] == State.COMPLETED


async def test_a_batch_of_all_kinds_gets_each_its_answer(engine: Engine) -> None:
    worker = await engine.connect()
    done, fresh = await engine.running(worker), await engine.running(worker)
    await engine.settle(succeeded(done))
    stale = replace(succeeded(fresh), attempt=AttemptRef(fresh["id"], 77, 1))
    unknown = replace(succeeded(fresh), attempt=AttemptRef(2**61, 1, 1))

    assert sorted(await engine.settle(succeeded(fresh), succeeded(done), stale, unknown)) == sorted(ANSWERS)


# Failures and retries


async def test_a_failure_with_retries_left_waits_out_its_backoff(engine: Engine) -> None:
    worker = await engine.connect()
    policy = RetryPolicy(max_retries=3, base_ms=1000, factor=3, cap_ms=5000)
    row = await engine.running(worker, retries=policy)

    for attempt, longest in ((1, 1.0), (2, 3.0), (3, 5.0)):
        await engine.hints()
        assert await engine.settle(failed(row, exit_code=attempt)) == [Verdict.ACCEPTED]
        job = await engine.job(row["id"])
        assert (job["state"], job["attempt"], job["delayed"]) == (State.RETRYING, attempt, True)
        assert -0.5 < await engine.delay_of(row["id"]) <= longest
        assert (await engine.hints())[row["id"]] == pytest.approx(job["available_at"].timestamp() * 1000, abs=1.01)
        await engine.make_due(row["id"])
        [row] = await engine.claim(worker, row["id"])

    await engine.settle(failed(row, exit_signal=9, exit_code=None, reason=Reason.SIGNALLED))
    job = await engine.job(row["id"])
    assert (job["state"], job["attempt"], job["exit_signal"], job["fence"]) == (State.FAILED, 4, 9, 4)
    assert await engine.hints() == {}
    kept = await engine.attempts(row["id"])
    assert [(each["number"], each["fence"], each["outcome"]) for each in kept] == [
        (number, number, Outcome.FAILED) for number in (1, 2, 3, 4)
    ]
    assert [each["exit_code"] for each in kept] == [1, 2, 3, None]


async def test_a_failure_without_retries_is_the_end(engine: Engine) -> None:
    row = await engine.running(await engine.connect())

    await engine.settle(failed(row, stdout=ANY_BYTES, stdout_bytes=258, error="out of luck", exit_code=3))

    job, [attempt] = await engine.job(row["id"]), await engine.attempts(row["id"])
    assert job["state"] == State.FAILED
    for kept in (job, attempt):
        assert (kept["stdout"], kept["error"], kept["exit_code"], kept["stderr"]) == (ANY_BYTES, "out of luck", 3, b"")
    assert (attempt["session_id"], attempt["worker_id"]) == (job["session_id"], job["worker_id"])


async def test_a_success_after_failures_counts_all_attempts(engine: Engine) -> None:
    worker = await engine.connect()
    row = await engine.running(worker, retries=RetryPolicy(max_retries=1, base_ms=0))
    await engine.settle(failed(row))
    await engine.make_due(row["id"])
    [row] = await engine.claim(worker, row["id"])

    await engine.settle(succeeded(row))

    job = await engine.job(row["id"])
    assert (job["state"], job["attempt"], job["exit_code"], job["error"]) == (State.COMPLETED, 2, 0, None)


# Lost and returned


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
