"""Workflows over the wire: the catalog, runs step by step, cancel, and what goes wrong."""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import grpc
import pytest

from orqestra.settings import Settings
from orqestra.v1 import jobs_pb2, workflows_pb2
from orqestra.v1.workflows_pb2 import (
    RUN_STATUS_CANCELLED,
    RUN_STATUS_COMPLETED,
    RUN_STATUS_FAILED,
    RUN_STATUS_RUNNING,
    CancelRunRequest,
    GetRunRequest,
    ListRunsRequest,
    ListWorkflowsRequest,
    Run,
    TriggerWorkflowRequest,
)
from tests.support.lossy_postgres import lossy_postgres
from tests.support.raw_worker import Verdict
from tests.support.server import RunningServer, refusal, running_server, settings_for

THREE = "name: three\nsteps:\n  - command: echo 1\n  - command: echo 2\n    retries: 1\n  - command: echo 3\n"
CATALOG_SECONDS = 5.0


@pytest.fixture(autouse=True)
def definitions(server_settings: Settings) -> Path:
    """The folder of the server's workflows, with one of three steps."""
    folder = server_settings.workflows_dir
    (folder / "three.yaml").write_text(THREE)
    return folder


async def trigger(server: RunningServer, name: str = "three", key: str = "") -> Run:
    run: Run = await server.workflows.TriggerWorkflow(TriggerWorkflowRequest(name=name, idempotency_key=key))
    return run


async def get(server: RunningServer, run_id: int) -> Run:
    run: Run = await server.workflows.GetRun(GetRunRequest(id=run_id))
    return run


def statuses(run: Run) -> list[int | None]:
    return [step.job.status if step.HasField("job") else None for step in run.steps]


async def test_the_catalog_has_what_is_whole_and_tells_what_is_broken(server: RunningServer, definitions: Path) -> None:
    (definitions / "broken.yml").write_text("name: broken\nsteps:\n  - comand: oops\n")

    async with asyncio.timeout(CATALOG_SECONDS):
        while not (listing := await server.workflows.ListWorkflows(ListWorkflowsRequest())).broken:
            await asyncio.sleep(0.05)

    assert [(each.name, each.file, len(each.steps)) for each in listing.workflows] == [("three", "three.yaml", 3)]
    [broken] = listing.broken
    assert (broken.file, broken.line) == ("broken.yml", 3)
    assert "comand" in broken.problem


async def test_a_broken_workflow_cannot_be_triggered(server: RunningServer, definitions: Path) -> None:
    (definitions / "broken.yaml").write_text("name: broken\nsteps: []\n")

    refused = await refusal(server.workflows.TriggerWorkflow(TriggerWorkflowRequest(name="broken")))

    assert refused.status in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
    assert "broken" in refused.message
    assert refused.trailers["orqestra-stored"] == "no"


async def test_steps_run_in_order_and_hand_on_their_output(server: RunningServer) -> None:
    run = await trigger(server)
    assert (run.workflow, run.status, statuses(run)) == (
        "three",
        RUN_STATUS_RUNNING,
        [jobs_pb2.STATUS_PENDING, None, None],
    )
    async with server.worker() as worker:
        stream = await worker.open()
        handed_on = []
        for number in (1, 2, 3):
            [job] = await stream.assigned(1)
            assert job.run_id == run.id
            assert job.step == run.steps[number - 1].key
            assert b"echo %d" % number in job.payload
            handed_on.append((job.has_previous_output, job.previous_output))
            if number == 2:
                # A step that fails is tried again; the run goes on with what it wrote in the end.
                await stream.finish([job], ok=False, stdout=b"no", stdout_bytes=2)
                [job] = await stream.assigned(1)
                assert job.previous_output == b"out 1\0\xff"
            text = b"out %d\0\xff" % number
            await stream.finish([job], stdout=text, stdout_bytes=len(text))
        await stream.none("assign", 0.2)

    run = await get(server, run.id)
    assert (run.status, run.error, run.HasField("finished_at")) == (RUN_STATUS_COMPLETED, "", True)
    assert statuses(run) == [jobs_pb2.STATUS_COMPLETED] * 3
    assert handed_on == [(False, b""), (True, b"out 1\0\xff"), (True, b"out 2\0\xff")]
    assert [step.job.stdout for step in run.steps] == [b"out %d\0\xff" % number for number in (1, 2, 3)]


async def test_a_step_that_fails_for_good_fails_its_run_and_a_retry_goes_on_with_it(server: RunningServer) -> None:
    run = await trigger(server)
    async with server.worker() as worker:
        stream = await worker.open()
        [first] = await stream.assigned(1)
        await stream.finish([first], ok=False, exit_code=9)
        failed = await get(server, run.id)

        assert failed.status == RUN_STATUS_FAILED
        assert run.steps[0].key in failed.error
        assert "9" in failed.error
        await stream.none("assign", 0.2)
        await server.jobs.RetryJob(jobs_pb2.RetryJobRequest(id=first.attempt.job_id))
        assert (await get(server, run.id)).status == RUN_STATUS_RUNNING
        for _ in range(3):
            await stream.finish(await stream.assigned(1))
    assert (await get(server, run.id)).status == RUN_STATUS_COMPLETED


async def test_the_same_key_triggers_once(server: RunningServer) -> None:
    runs = await asyncio.gather(*(trigger(server, key="once") for _ in range(10)))
    other = await trigger(server, key="other")

    assert len({run.id for run in runs}) == 1
    assert other.id != runs[0].id
    listed = await server.workflows.ListRuns(ListRunsRequest())
    assert [run.id for run in listed.runs] == [other.id, runs[0].id]


async def test_cancel_of_a_run_ends_a_waiting_step_and_stops_a_running_one(server: RunningServer) -> None:
    waiting = await trigger(server)
    cancelled = await server.workflows.CancelRun(CancelRunRequest(id=waiting.id))
    assert (cancelled.status, statuses(cancelled)[0]) == (RUN_STATUS_CANCELLED, jobs_pb2.STATUS_CANCELLED)

    running = await trigger(server)
    async with server.worker() as worker:
        stream = await worker.open()
        [job] = await stream.assigned(1)
        stopping = await server.workflows.CancelRun(CancelRunRequest(id=running.id))
        assert (stopping.status, stopping.cancel_requested) == (RUN_STATUS_RUNNING, True)
        assert list((await stream.next("cancel")).attempts) == [job.attempt]
        # Even if it succeeds, no further step starts.
        assert await stream.finish([job]) == [Verdict.VERDICT_ACCEPTED]
        await stream.none("assign", 0.2)
    ended = await get(server, running.id)
    assert (ended.status, statuses(ended)) == (RUN_STATUS_CANCELLED, [jobs_pb2.STATUS_CANCELLED, None, None])
    again = await server.workflows.CancelRun(CancelRunRequest(id=running.id))
    assert again.status == RUN_STATUS_CANCELLED
    refused = await refusal(server.jobs.RetryJob(jobs_pb2.RetryJobRequest(id=job.attempt.job_id)))
    assert refused.status is grpc.StatusCode.FAILED_PRECONDITION
    assert "cancelled" in refused.message


async def test_runs_are_listed_by_name_and_status_in_pages(server: RunningServer, definitions: Path) -> None:
    (definitions / "one.yaml").write_text("name: one\nsteps:\n  - command: echo\n")
    ids = [(await trigger(server)).id for _ in range(5)]
    one = (await trigger(server, "one")).id
    await server.workflows.CancelRun(CancelRunRequest(id=ids[0]))

    async def listed(**request: Any) -> tuple[list[int], int]:
        page = await server.workflows.ListRuns(ListRunsRequest(**request))
        return [run.id for run in page.runs], page.next

    assert (await listed(workflow="one"))[0] == [one]
    assert (await listed(statuses=[RUN_STATUS_CANCELLED]))[0] == [ids[0]]
    assert (await listed(statuses=[RUN_STATUS_RUNNING], workflow="three"))[0] == ids[:0:-1]
    first, following = await listed(limit=4)
    assert first == [one, *ids[:1:-1]]
    assert (await listed(limit=4, after=following))[0] == [ids[1], ids[0]]


async def test_a_run_goes_by_the_definition_of_its_start(server: RunningServer, definitions: Path) -> None:
    run = await trigger(server)
    (definitions / "three.yaml").unlink()
    async with server.worker() as worker:
        stream = await worker.open()
        for _ in range(3):
            await stream.finish(await stream.assigned(1))
    assert (await get(server, run.id)).status == RUN_STATUS_COMPLETED


async def test_a_step_that_was_claimed_but_could_not_be_sent_is_not_stranded(
    database: str, redis_url: str, redis_namespace: str, definitions: Path
) -> None:
    with tempfile.TemporaryDirectory(prefix="orqestra-out-") as folder:
        async with lossy_postgres(database, Path(folder)) as lossy:
            settings = settings_for(lossy.url, redis_url, redis_namespace, WORKFLOWS_DIR=str(definitions))
            async with running_server(settings) as server, server.worker() as worker:
                stream = await worker.open()
                run = await trigger(server)
                [first] = await stream.assigned(1)
                # The output of the step before, if it is kept apart, is read after the next one was claimed.
                assert await stream.store(first.attempt, jobs_pb2.STREAM_STDOUT, 0, b"seen")
                lossy.lose("AS output", after_commit=False, for_good=True)
                await stream.finish([first], stdout_stored=True, stdout_bytes=4)
                await lossy.cut_now.wait()

                assert (await stream.next("goodbye")).reason
                await lossy.open()
                second = await worker.open()
                for _ in (2, 3):
                    await second.finish(await second.assigned(1))
                assert (await get(server, run.id)).status == workflows_pb2.RUN_STATUS_COMPLETED
