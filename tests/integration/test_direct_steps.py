"""Steps of runs that are stored as running: the first with its run, each other with the end of the one before."""

import asyncio
from pathlib import Path

import pytest

from orqestra.model.lifecycle import RunState, State
from tests.support.databases import bare
from tests.support.direct import SLOTS, BrokenStream, Runs
from tests.support.engine import Engine, failed, succeeded, until_blocked
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_free_worker_gets_the_first_step_with_its_run(engine: Engine, tmp_path: Path) -> None:
    runs = await Runs(engine).ready(tmp_path)

    run_id = await runs.trigger()

    [step] = await runs.steps(run_id)
    assert (step["state"], step["fence"], step["session_id"]) == (State.RUNNING, 1, runs.session.id)
    [job] = runs.told()
    assert (job.attempt.job_id, job.attempt.token) == (step["id"], step["token"])
    assert (job.run_id, job.step, job.has_previous_output) == (run_id, "one", False)
    assert job.payload == bytes(step["payload"])
    assert await engine.hints() == {}


@pytest.mark.parametrize("output", [b"", b"from one\n"])
async def test_the_next_step_runs_with_the_commit_of_the_one_before(
    engine: Engine, tmp_path: Path, output: bytes
) -> None:
    runs = await Runs(engine).ready(tmp_path)
    [one] = await runs.steps(run_id := await runs.trigger())

    await runs.settle(succeeded(one, stdout=output, stderr=b"", stdout_bytes=len(output)))

    _, two = await runs.steps(run_id)
    assert (two["state"], two["previous_job_id"]) == (State.RUNNING, one["id"])
    [job] = runs.told(["two"])
    assert (job.attempt.job_id, job.run_id, job.timeout_ms) == (two["id"], run_id, 7000)
    assert (job.has_previous_output, job.previous_output) == (True, output)
    assert await engine.hints() == {}
    assert runs.matcher.free(runs.session.id) == SLOTS - 1
    await runs.settle(succeeded(two))
    assert (await engine.run(run_id))["state"] == RunState.COMPLETED


async def test_many_runs_advance_in_one_commit_and_what_finds_no_slot_waits(engine: Engine, tmp_path: Path) -> None:
    runs = await Runs(engine).ready(tmp_path)
    ids = [await runs.trigger() for _ in range(SLOTS)]
    ones = [step for run_id in ids for step in await runs.steps(run_id)]
    # One of their slots is somebody else's by the time they end.
    runs.matcher.hold(runs.session.id, 1)

    await runs.settle(*(succeeded(one, stdout=b"%d" % one["id"]) for one in ones))

    free = SLOTS - 1
    twos = [(await runs.steps(run_id))[1] for run_id in ids]
    assert [two["state"] for two in twos] == [State.RUNNING] * free + [State.PENDING] * (SLOTS - free)
    assert {job.attempt.job_id: job.previous_output for job in runs.told(["two"])} == {
        two["id"]: b"%d" % two["previous_job_id"] for two in twos[:free]
    }
    assert list(await engine.hints()) == [two["id"] for two in twos[free:]]


async def test_a_step_after_output_that_is_kept_apart_goes_the_usual_way(engine: Engine, tmp_path: Path) -> None:
    runs = await Runs(engine).ready(tmp_path)
    [one] = await runs.steps(run_id := await runs.trigger())

    await runs.settle(succeeded(one, stdout=None, stdout_bytes=10_000))

    assert await runs.steps_are(run_id) == [State.COMPLETED, State.PENDING]
    assert runs.told(["two"]) == []
    assert len(await engine.hints()) == 1


async def test_it_does_not_pass_what_waits_with_the_same_commit(engine: Engine, tmp_path: Path) -> None:
    runs = await Runs(engine).ready(tmp_path)
    first, second = await runs.trigger(), await runs.trigger()
    [[again], [done]] = [await runs.steps(run_id) for run_id in (first, second)]

    await runs.settle(failed(again), succeeded(done, stdout=b""))

    assert await runs.steps_are(first) == [State.RETRYING]
    assert await runs.steps_are(second) == [State.COMPLETED, State.PENDING]
    assert runs.told(["two"]) == []


async def test_a_step_for_a_session_that_is_closed_waits(engine: Engine, tmp_path: Path) -> None:
    runs = await Runs(engine).ready(tmp_path)
    run_id = await runs.trigger()
    other = await engine.connect()
    await engine.sql("UPDATE jobs SET session_id = $2 WHERE run_id = $1", run_id, other.session_id)
    await engine.sql(
        "UPDATE sessions SET closed_at = clock_timestamp(), closed_reason = 'lapsed' WHERE id = $1", runs.session.id
    )
    [one] = await runs.steps(run_id)

    await runs.settle(succeeded(one, stdout=b""))

    assert await runs.steps_are(run_id) == [State.COMPLETED, State.PENDING]
    assert runs.told(["two"]) == []
    assert len(await engine.hints()) == 1
    assert runs.matcher.free(runs.session.id) == SLOTS


async def test_a_step_that_cannot_be_sent_goes_back_with_its_stream(engine: Engine, tmp_path: Path) -> None:
    runs = Runs(engine)
    runs.stream = BrokenStream()
    await runs.ready(tmp_path)

    run_id = await runs.trigger()

    # It is stored, whatever becomes of the stream: the next Hello does not name it.
    assert await runs.steps_are(run_id) == [State.RUNNING]
    assert engine.sessions.get(runs.session.id) is None
    assert len(runs.stream.ended) == 1


async def test_a_caller_who_goes_takes_neither_the_run_nor_a_stream_along(engine: Engine, tmp_path: Path) -> None:
    runs = await Runs(engine).ready(tmp_path)
    async with bare(engine.database) as connection, connection.transaction():
        await connection.execute("LOCK TABLE workflow_runs IN EXCLUSIVE MODE")
        calling = asyncio.create_task(runs.trigger())
        await until_blocked(engine)

        calling.cancel()
        await asyncio.wait([calling])

    await until(lambda: len(runs.told()) == 1)
    assert calling.cancelled()
    assert runs.stream.ended == []
