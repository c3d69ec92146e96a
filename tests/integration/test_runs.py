"""Runs: a step's end and the next step's beginning are one transaction, whoever else is at work."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from orqestra.engine.catalog import Catalog
from orqestra.engine.workflows import Workflows
from orqestra.model.errors import Refused
from orqestra.model.lifecycle import RunState, State
from orqestra.model.report import Verdict
from orqestra.store.database import Row
from orqestra.store.settling import Settling
from tests.support.engine import SERVER_ID, Engine, Worker, failed, piece, returned, succeeded, until_blocked

pytestmark = pytest.mark.asyncio(loop_scope="module")

THREE_STEPS = """
name: three
steps:
  - command: echo one
    retries: 1
  - command: echo two
  - command: echo three
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def workflows(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Workflows:
    directory: Path = tmp_path_factory.mktemp("workflows")
    (directory / "three.yaml").write_text(THREE_STEPS)
    return Workflows(engine.core, Catalog(directory, engine.core.clock), engine.lanes, engine.relay, engine.direct)


async def steps(engine: Engine, run_id: int) -> list[Row]:
    return await engine.sql("SELECT * FROM jobs WHERE run_id = $1 ORDER BY id", run_id)


async def claim_last(engine: Engine, worker: Worker, run_id: int) -> Mapping[str, Any]:
    """Claim the newest step of a run."""
    last = (await steps(engine, run_id))[-1]
    await engine.make_due(last["id"])
    [row] = await engine.claim(worker, last["id"])
    return row


async def states(engine: Engine, run_id: int) -> tuple[str, list[str]]:
    run = await engine.run(run_id)
    return run["state"], [step["state"] for step in await steps(engine, run_id)]


@asynccontextmanager
async def unfinished_settlement(engine: Engine, row: Mapping[str, Any]) -> AsyncIterator[None]:
    """Settle a success and hold back the commit until the end of the block."""
    async with engine.database.transaction() as statements:
        settling = Settling(statements, server_id=SERVER_ID, find_lane=engine.lanes.find_existing)
        await settling.settle([succeeded(row)], wait_for_locks=True)
        yield


async def test_a_trigger_stores_the_run_with_its_first_step_and_a_hint(engine: Engine, workflows: Workflows) -> None:
    await engine.hints()

    run_id = await workflows.trigger("three", None)

    run, [step] = await engine.run(run_id), await steps(engine, run_id)
    assert (run["state"], run["name"]) == (RunState.RUNNING, "three")
    assert (step["state"], step["step_key"], step["max_retries"]) == (State.PENDING, "step-1", 1)
    assert await engine.hints() == {step["id"]: 0}


async def test_the_same_key_is_the_same_run(engine: Engine, workflows: Workflows) -> None:
    first, second = await asyncio.gather(*(workflows.trigger("three", "once") for _ in range(2)))

    assert first == second == await workflows.trigger("three", "once")
    assert len(await steps(engine, first)) == 1


async def test_each_success_inserts_the_next_step_and_the_last_one_completes_the_run(
    engine: Engine, workflows: Workflows
) -> None:
    worker = await engine.connect()
    run_id = await workflows.trigger("three", None)
    previous = None

    for number in (1, 2, 3):
        row = await claim_last(engine, worker, run_id)
        assert (row["step_key"], row["previous_job_id"]) == (f"step-{number}", previous)
        await engine.hints()
        assert await engine.settle(succeeded(row)) == [Verdict.ACCEPTED]
        newer = [step["id"] for step in await steps(engine, run_id) if step["id"] > row["id"]]
        assert await engine.hints() == dict.fromkeys(newer, 0)
        previous = row["id"]

    run, all_steps = await engine.run(run_id), await steps(engine, run_id)
    assert (run["state"], run["error"]) == (RunState.COMPLETED, None)
    assert run["finished_at"] >= run["created_at"]
    assert [step["state"] for step in all_steps] == [State.COMPLETED] * 3


async def test_the_end_of_a_step_and_the_next_step_have_one_commit(engine: Engine, workflows: Workflows) -> None:
    row = await claim_last(engine, await engine.connect(), run_id := await workflows.trigger("three", None))

    async with unfinished_settlement(engine, row):
        assert await states(engine, run_id) == (RunState.RUNNING, [State.RUNNING])

    first, second = await steps(engine, run_id)
    [versions] = await engine.sql(
        "SELECT count(DISTINCT xmin::text) AS transactions FROM jobs WHERE id IN ($1, $2)", first["id"], second["id"]
    )
    assert versions["transactions"] == 1


async def test_a_result_that_comes_twice_inserts_the_next_step_once(engine: Engine, workflows: Workflows) -> None:
    row = await claim_last(engine, await engine.connect(), run_id := await workflows.trigger("three", None))

    await engine.settle(succeeded(row), succeeded(row))
    assert await engine.settle(succeeded(row)) == [Verdict.DUPLICATE]

    assert await states(engine, run_id) == (RunState.RUNNING, [State.COMPLETED, State.PENDING])


async def test_two_settlements_of_one_step_at_once_insert_one_next_step(engine: Engine, workflows: Workflows) -> None:
    row = await claim_last(engine, await engine.connect(), run_id := await workflows.trigger("three", None))

    async with unfinished_settlement(engine, row):
        second = asyncio.create_task(engine.settle(succeeded(row)))
        await until_blocked(engine)

    assert await second == [Verdict.DUPLICATE]
    assert await states(engine, run_id) == (RunState.RUNNING, [State.COMPLETED, State.PENDING])


async def test_a_step_is_retried_before_it_fails_the_run(engine: Engine, workflows: Workflows) -> None:
    worker = await engine.connect()
    row = await claim_last(engine, worker, run_id := await workflows.trigger("three", None))
    await engine.settle(failed(row))
    assert await states(engine, run_id) == (RunState.RUNNING, [State.RETRYING])
    await engine.make_due(row["id"])
    [row] = await engine.claim(worker, row["id"])
    await engine.settle(returned(row))
    assert await states(engine, run_id) == (RunState.RUNNING, [State.PENDING])
    [row] = await engine.claim(worker, row["id"])

    await engine.settle(failed(row, exit_code=7))

    assert await states(engine, run_id) == (RunState.FAILED, [State.FAILED])
    assert f"step step-1 (job {row['id']}) failed: exited with code 7" in (await engine.run(run_id))["error"]


async def test_a_retry_of_the_failed_step_goes_on_with_the_run(engine: Engine, workflows: Workflows) -> None:
    worker = await engine.connect()
    run_id = await workflows.trigger("three", None)
    await engine.settle(succeeded(await claim_last(engine, worker, run_id)))
    second = await claim_last(engine, worker, run_id)
    await engine.settle(failed(second))
    assert (await engine.run(run_id))["state"] == RunState.FAILED

    await engine.cancels.retry(second["id"])

    run = await engine.run(run_id)
    assert (run["state"], run["error"], run["finished_at"]) == (RunState.RUNNING, None, None)
    for _ in range(2):
        await engine.settle(succeeded(await claim_last(engine, worker, run_id)))
    assert await states(engine, run_id) == (RunState.COMPLETED, [State.COMPLETED] * 3)


async def test_a_cancel_of_a_waiting_step_cancels_the_run(engine: Engine, workflows: Workflows) -> None:
    run_id = await workflows.trigger("three", None)
    [step] = await steps(engine, run_id)

    await engine.cancels.cancel([step["id"]])

    assert await states(engine, run_id) == (RunState.CANCELLED, [State.CANCELLED])
    with pytest.raises(Refused, match=f"step of run {run_id}, which is cancelled"):
        await engine.cancels.retry(step["id"])
    assert await states(engine, run_id) == (RunState.CANCELLED, [State.CANCELLED])


@pytest.mark.parametrize("whole", [False, True])
async def test_a_cancel_of_a_running_step_stops_the_run_even_after_a_success(
    engine: Engine, workflows: Workflows, whole: bool
) -> None:
    worker = await engine.connect()
    row = await claim_last(engine, worker, run_id := await workflows.trigger("three", None))

    if whole:
        assert await engine.cancels.cancel_run(run_id)
    else:
        await engine.cancels.cancel([row["id"]])
    assert (await engine.run(run_id))["state"] == RunState.RUNNING
    await engine.settle(succeeded(row))

    assert await states(engine, run_id) == (RunState.CANCELLED, [State.CANCELLED])
    assert len(worker.peer.cancelled) == 1


async def test_a_cancel_of_a_run_cancels_its_waiting_step(engine: Engine, workflows: Workflows) -> None:
    worker = await engine.connect()
    run_id = await workflows.trigger("three", None)
    await engine.settle(succeeded(await claim_last(engine, worker, run_id)))

    assert await engine.cancels.cancel_run(run_id)

    assert await states(engine, run_id) == (RunState.CANCELLED, [State.COMPLETED, State.CANCELLED])


async def test_a_run_that_has_ended_is_not_cancelled(engine: Engine, workflows: Workflows) -> None:
    worker = await engine.connect()
    run_id = await workflows.trigger("three", None)
    for _ in range(3):
        await engine.settle(succeeded(await claim_last(engine, worker, run_id)))

    assert not await engine.cancels.cancel_run(run_id)
    assert (await engine.run(run_id))["state"] == RunState.COMPLETED


async def test_a_step_that_begins_while_its_run_is_cancelled_is_cancelled_too(
    engine: Engine, workflows: Workflows
) -> None:
    """The cancel waits for the lock of the run; the step that it then finds is not the one it came for."""
    worker = await engine.connect()
    row = await claim_last(engine, worker, run_id := await workflows.trigger("three", None))

    async with unfinished_settlement(engine, row):
        cancel = asyncio.create_task(engine.cancels.cancel_run(run_id))
        await until_blocked(engine)

    assert await cancel
    assert await states(engine, run_id) == (RunState.CANCELLED, [State.COMPLETED, State.CANCELLED])


async def test_a_worker_lost_five_times_fails_the_run_with_its_step(engine: Engine, workflows: Workflows) -> None:
    worker = await engine.connect()
    run_id = await workflows.trigger("three", None)
    for _ in range(5):
        await claim_last(engine, worker, run_id)
        await engine.close(worker)
        await engine.sweep()
        await engine.connect(worker)

    assert await states(engine, run_id) == (RunState.FAILED, [State.FAILED])
    assert "lost 5 times" in (await engine.run(run_id))["error"]


async def test_steps_of_many_runs_settle_in_one_batch(engine: Engine, workflows: Workflows) -> None:
    worker = await engine.connect()
    run_ids = [await workflows.trigger("three", None) for _ in range(20)]
    rows = [await claim_last(engine, worker, run_id) for run_id in run_ids]
    plain = await engine.running(worker)

    verdicts = await engine.settle(*map(succeeded, [*rows[:10], plain]), *map(failed, rows[10:]))

    assert verdicts == [Verdict.ACCEPTED] * 21
    for run_id in run_ids[:10]:
        assert await states(engine, run_id) == (RunState.RUNNING, [State.COMPLETED, State.PENDING])


async def test_the_output_of_a_step_is_handed_on_whole(engine: Engine, workflows: Workflows) -> None:
    worker = await engine.connect()
    inline = await engine.running(worker)
    stored = await engine.running(worker)
    silent = await engine.running(worker)
    parts = [b"\x00\xff" * 30_000, b"b" * 60_000, b"c\n"]
    at = 0
    for part in parts:
        engine.outputs.store(piece(stored, part, offset=at))
        at += len(part)
    engine.outputs.store(piece(stored, b"not this", stream=2))
    await engine.outputs.run_once()
    await engine.settle(succeeded(inline, stdout=b"\x00in\xff", stdout_bytes=4))
    await engine.settle(succeeded(stored, stdout=None, stdout_bytes=at, stderr=None), succeeded(silent))

    rows = await engine.database.fetch("read_previous_output", ids=[inline["id"], stored["id"], silent["id"]])

    outputs = {row["id"]: row["output"] for row in rows}
    assert outputs == {inline["id"]: b"\x00in\xff", stored["id"]: b"".join(parts), silent["id"]: b""}
