"""Cancels and retries whose COMMIT has no answer: they are done once, told once, and undo nobody else's."""

import asyncio

import pytest

from orqestra.model.lifecycle import State
from orqestra.v1.workflows_pb2 import TriggerWorkflowRequest
from tests.support.engine import engine_on
from tests.support.lossy_postgres import LossyPostgres
from tests.support.server import RunningServer

WORKFLOW = "two"

LOSSES = pytest.mark.parametrize("after_commit", [True, False], ids=["after the commit", "before it"])


@pytest.fixture
def workflow(frail: RunningServer) -> str:
    """The name of a workflow of two steps."""
    text = f"name: {WORKFLOW}\nsteps:\n  - command: echo 1\n  - command: echo 2\n"
    (frail.server.settings.workflows_dir / "two.yaml").write_text(text)
    return WORKFLOW


@LOSSES
async def test_a_cancel_whose_commit_is_lost_is_still_told_to_those_who_watch(
    lossy: LossyPostgres, database: str, *, after_commit: bool
) -> None:
    async with engine_on(lossy.url) as engine:
        waiting, gone = await engine.submit(), await engine.submit()
        await engine.cancels.cancel([gone])
        engine.changed.clear()
        lossy.lose("COMMIT", after_commit=after_commit, following="cancel_jobs")

        answers = await engine.cancels.cancel([waiting, gone])

        assert [(each.was, each.state) for each in answers] == [
            (State.PENDING, State.CANCELLED),
            (State.CANCELLED, State.CANCELLED),
        ]
        assert engine.changed == [waiting]
    assert lossy.cuts == 1


async def test_a_cancel_that_stored_nothing_does_not_claim_that_of_another(lossy: LossyPostgres, database: str) -> None:
    async with engine_on(lossy.url) as engine, engine_on(database) as other:
        job_id = await engine.submit()
        lossy.lose("COMMIT", after_commit=False, following="cancel_jobs", for_good=True)

        call = asyncio.create_task(engine.cancels.cancel([job_id]))
        await lossy.cut_now.wait()
        await other.cancels.cancel([job_id])
        await lossy.open()

        assert [each.was for each in await call] == [State.CANCELLED]
        assert engine.changed == []


@LOSSES
async def test_a_cancelled_run_whose_commit_is_lost_is_told_to_those_who_watch_its_step(
    lossy: LossyPostgres, frail: RunningServer, workflow: str, *, after_commit: bool
) -> None:
    run = await frail.workflows.TriggerWorkflow(TriggerWorkflowRequest(name=workflow))
    async with engine_on(lossy.url) as engine:
        [step] = await engine.sql("SELECT id FROM jobs WHERE run_id = $1", run.id)
        lossy.lose("COMMIT", after_commit=after_commit, following="cancel_jobs")

        assert await engine.cancels.cancel_run(run.id)

        assert engine.changed == [step["id"]]
    assert lossy.cuts == 1


@LOSSES
async def test_a_retry_whose_commit_is_lost_does_not_undo_a_cancel_that_came_after_it(
    lossy: LossyPostgres, database: str, *, after_commit: bool
) -> None:
    async with engine_on(lossy.url) as engine, engine_on(database) as other:
        job_id = await engine.submit()
        await engine.cancels.cancel([job_id])
        lossy.lose("COMMIT", after_commit=after_commit, following="retry_job", for_good=True)

        call = asyncio.create_task(engine.cancels.retry(job_id))
        await lossy.cut_now.wait()
        [cancelled] = await other.cancels.cancel([job_id])
        await lossy.open()
        await call

        # Cancelled again where the retry was stored; where it was not, it is the retry that came last.
        assert cancelled.was == (State.PENDING if after_commit else State.CANCELLED)
        assert (await engine.job(job_id))["state"] == (State.CANCELLED if after_commit else State.PENDING)
