"""Settlement: every write by a worker is fenced, every report gets its answer, every end its place."""

from dataclasses import replace

import pytest

from orqestra.model.decision import Ending, Outcome
from orqestra.model.lifecycle import State
from orqestra.model.report import AttemptRef, Reason, Verdict
from orqestra.model.retry import RetryPolicy
from tests.support.engine import Engine, failed, lose, noop, report, succeeded

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANY_BYTES = bytes(range(256)) + b"\xff\xfe\x00"
ANSWERS = [Verdict.ACCEPTED, Verdict.DUPLICATE, Verdict.STALE, Verdict.UNKNOWN]


# A success


@pytest.mark.parametrize(("written", "truncated"), [(len(ANY_BYTES), False), (999, True)])
async def test_a_success_is_stored_byte_for_byte(engine: Engine, written: int, truncated: bool) -> None:
    row = await engine.running(await engine.connect())

    verdicts = await engine.settle(
        succeeded(
            row,
            stdout=ANY_BYTES,
            stderr=ANY_BYTES[::-1],
            stdout_bytes=len(ANY_BYTES),
            stderr_bytes=written,
            truncated=truncated,
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
    assert (job["stdout_bytes"], job["stderr_bytes"], job["truncated"]) == (len(ANY_BYTES), written, truncated)
    # the slow way adds how many processes were killed and left
    assert job["usage_us"] == [1, 2, 3, 4] + ([0, 0] if truncated else [])
    assert job["finished_at"] >= job["started_at"]
    assert await engine.attempts(row["id"]) == []
    assert engine.changed[-1] == row["id"]


async def test_what_only_some_successes_of_a_batch_have_stays_with_them(engine: Engine) -> None:
    worker = await engine.connect()
    silent, loud, busy = [await engine.running(worker) for _ in range(3)]

    await engine.settle(
        succeeded(silent), succeeded(loud, stderr=b"e", stderr_bytes=1), succeeded(busy, system_us=7, max_rss_kb=2)
    )

    jobs = [await engine.job(row["id"]) for row in (silent, loud, busy)]
    assert [(job["stdout"], job["stderr"]) for job in jobs] == [(b"", b""), (b"", b"e"), (b"", b"")]
    assert [(job["stdout_bytes"], job["stderr_bytes"]) for job in jobs] == [(0, 0), (0, 1), (0, 0)]
    assert [job["usage_us"] for job in jobs] == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 7, 2]]


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
