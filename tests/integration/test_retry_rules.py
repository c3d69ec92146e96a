"""Retry rules on real rows: what they let be retried, what they end, and that they stay with the job."""

from pathlib import Path
from typing import Any

import pytest

from orqestra.engine.catalog import Catalog
from orqestra.engine.workflows import Workflows
from orqestra.model.lifecycle import RunState, State
from orqestra.model.report import Reason, Verdict
from orqestra.model.retry import RetryPolicy
from orqestra.model.retry_rules import Jitter
from tests.support.engine import Engine, failed, lose, succeeded

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEMPORARY = 75
ONE_STEP = """
name: one
steps:
  - command: x
    retry: {max: 5, on: timeout, backoff: {base: 0s}}
"""


def policy(*on: str, never: tuple[str, ...] = (), max_retries: int = 3) -> RetryPolicy:
    return RetryPolicy(max_retries=max_retries, base_ms=0, on=on, never=never)


@pytest.mark.parametrize(
    ("rules", "end", "state", "error"),
    [
        (policy(), {"exit_code": 3}, State.RETRYING, None),
        (policy("3"), {"exit_code": 3}, State.RETRYING, None),
        (policy("10-20"), {"exit_code": 3}, State.FAILED, "exit code 3 is not retried"),
        (policy("10-20"), {"exit_code": TEMPORARY}, State.RETRYING, None),
        (policy(never=("75",)), {"exit_code": TEMPORARY}, State.FAILED, "exit code 75 is not retried"),
        (policy("timeout"), {"reason": Reason.TIMEOUT, "exit_signal": 15}, State.RETRYING, None),
        (policy("timeout"), {"reason": Reason.KILLED_AFTER_GRACE, "exit_signal": 9}, State.RETRYING, None),
        (policy(never=("timeout",)), {"reason": Reason.TIMEOUT}, State.FAILED, "timeout is not retried"),
        (policy("signal:KILL"), {"reason": Reason.SIGNALLED, "exit_signal": 9}, State.RETRYING, None),
        (policy("signal:KILL"), {"reason": Reason.OOM, "exit_signal": 9}, State.FAILED, "oom is not retried"),
        (policy("spawn_failed"), {"reason": Reason.SPAWN_FAILED, "exit_code": 127}, State.RETRYING, None),
        (policy("127"), {"reason": Reason.SPAWN_FAILED, "exit_code": 127}, State.RETRYING, None),
        (
            policy(never=("126-127",)),
            {"reason": Reason.SPAWN_FAILED, "exit_code": 127, "error": "no such program"},
            State.FAILED,
            "no such program; spawn_failed is not retried",
        ),
    ],
)
async def test_a_failure_is_retried_as_the_rules_say(
    engine: Engine, rules: RetryPolicy, end: dict[str, Any], state: State, error: str | None
) -> None:
    row = await engine.running(await engine.connect(), retries=rules)

    assert await engine.settle(failed(row, **{"exit_code": None, **end})) == [Verdict.ACCEPTED]

    job = await engine.job(row["id"])
    assert (job["state"], job["attempt"], job["error"]) == (state, 1, error)


async def test_the_last_retry_ends_it_without_a_word_of_rules(engine: Engine) -> None:
    row = await engine.running(await engine.connect(), retries=policy("5", max_retries=0))

    await engine.settle(failed(row, exit_code=3))

    assert (await engine.job(row["id"]))["error"] is None


async def test_a_lost_worker_is_no_failure_that_rules_could_refuse(engine: Engine) -> None:
    worker = await engine.connect()
    row = await engine.running(worker, retries=policy("5", max_retries=1))

    await lose(engine, worker, row)

    job = await engine.job(row["id"])
    assert (job["state"], job["lost_count"], job["attempt"]) == (State.PENDING, 1, 0)


async def test_rules_are_kept_with_the_job_and_outlive_a_retry_by_hand(engine: Engine) -> None:
    worker = await engine.connect()
    row = await engine.running(worker, retries=policy("signal:KILL", "3"))
    await engine.settle(failed(row, exit_code=4))

    await engine.cancels.retry(row["id"])
    [again] = await engine.claim(worker, row["id"])
    await engine.settle(failed(again, exit_code=4))

    job = await engine.job(row["id"])
    assert (job["state"], job["retry_rules"]) == (State.FAILED, "on=3,signal:9")
    assert len(await engine.attempts(row["id"])) == 2


async def test_a_job_without_rules_keeps_nothing_of_them_beside_one_that_has(engine: Engine) -> None:
    worker = await engine.connect()
    plain = await engine.running(worker)
    even = await engine.running(worker, retries=RetryPolicy(max_retries=1, base_ms=60_000, jitter=Jitter.NONE))

    await engine.settle(failed(even))

    assert (await engine.job(plain["id"]))["retry_rules"] is None
    assert (await engine.job(even["id"]))["retry_rules"] == "jitter=none"
    assert 50 < await engine.delay_of(even["id"]) <= 60


async def test_a_step_that_is_not_retried_fails_its_run_and_says_why(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(ONE_STEP)
    workflows = Workflows(engine.core, Catalog(tmp_path, engine.core.clock), engine.lanes, engine.relay, engine.direct)
    worker = await engine.connect()
    run_id = await workflows.trigger("one", None)
    [step] = await engine.sql("SELECT id FROM jobs WHERE run_id = $1", run_id)

    for end in ({"reason": Reason.TIMEOUT, "exit_code": None}, {"exit_code": 3}):
        await engine.make_due(step["id"])
        [row] = await engine.claim(worker, step["id"])
        await engine.settle(failed(row, **end))

    run, job = await engine.run(run_id), await engine.job(step["id"])
    assert (run["state"], job["state"], job["attempt"]) == (RunState.FAILED, State.FAILED, 2)
    assert run["error"] == f"step step-1 (job {step['id']}) failed: exit code 3 is not retried"


async def test_processes_that_outlived_a_command_are_counted_whatever_its_end(engine: Engine) -> None:
    worker = await engine.connect()
    rows = [await engine.running(worker, retries=policy()) for _ in range(3)]

    await engine.settle(
        succeeded(rows[0], wall_us=1, killed_processes=2),
        succeeded(rows[1], wall_us=1),
        failed(rows[2], wall_us=1, killed_processes=1, left_processes=3),
    )

    killed, plain, lost = [await engine.job(row["id"]) for row in rows]
    assert (killed["state"], killed["usage_us"]) == (State.COMPLETED, [1, 0, 0, 0, 2, 0])
    assert (plain["state"], plain["usage_us"]) == (State.COMPLETED, [1, 0, 0, 0])
    assert (lost["state"], lost["usage_us"]) == (State.RETRYING, [1, 0, 0, 0, 1, 3])
    [attempt] = await engine.attempts(rows[2]["id"])
    assert (attempt["reason"], attempt["usage_us"]) == ("exited", [1, 0, 0, 0, 1, 3])
