"""The service of workflows: definitions and runs."""

import asyncio
from collections.abc import Iterator

import orjson

from orqestra.engine.cancels import Cancels
from orqestra.engine.catalog import Catalog
from orqestra.engine.workflows import Workflows
from orqestra.model.errors import NotFound
from orqestra.model.workflow import from_snapshot
from orqestra.rpc import decode, encode, reading
from orqestra.rpc.statuses import Context, as_status
from orqestra.store.database import Database, Row
from orqestra.v1 import workflows_pb2, workflows_pb2_grpc


class WorkflowsService(workflows_pb2_grpc.WorkflowsServicer):
    """Workflows and runs, as workflows.proto describes them."""

    def __init__(self, database: Database, catalog: Catalog, workflows: Workflows, cancels: Cancels) -> None:
        self._database = database
        self._catalog = catalog
        self._workflows = workflows
        self._cancels = cancels

    async def ListWorkflows(
        self, request: workflows_pb2.ListWorkflowsRequest, context: Context
    ) -> workflows_pb2.ListWorkflowsResponse:
        async with as_status(context):
            listing = await asyncio.to_thread(self._catalog.refresh)
            return workflows_pb2.ListWorkflowsResponse(
                workflows=[
                    workflows_pb2.Workflow(
                        name=name, steps=[step.key for step in each.definition.steps], file=each.file
                    )
                    for name, each in sorted(listing.workflows.items())
                ],
                broken=[
                    workflows_pb2.BrokenFile(file=each.file, line=each.line, problem=each.problem)
                    for each in listing.broken
                ],
            )

    async def TriggerWorkflow(
        self, request: workflows_pb2.TriggerWorkflowRequest, context: Context
    ) -> workflows_pb2.Run:
        async with as_status(context):
            run_id = await self._workflows.trigger(request.name, decode.key_of(request.idempotency_key))
            return await self._run(run_id)

    async def GetRun(self, request: workflows_pb2.GetRunRequest, context: Context) -> workflows_pb2.Run:
        async with as_status(context):
            return await self._run(request.id)

    async def ListRuns(
        self, request: workflows_pb2.ListRunsRequest, context: Context
    ) -> workflows_pb2.ListRunsResponse:
        async with as_status(context):
            page = decode.page_size(request.limit)
            rows = await self._database.fetch(
                "list_runs",
                after=decode.page_start(request.after) or reading.NEWEST,
                name=decode.name_filter("workflow", request.workflow),
                states=decode.run_states(request.statuses),
                page=page,
            )
            return workflows_pb2.ListRunsResponse(
                runs=map(encode.run, rows), next=rows[-1]["id"] if len(rows) == page else 0
            )

    async def CancelRun(self, request: workflows_pb2.CancelRunRequest, context: Context) -> workflows_pb2.Run:
        async with as_status(context):
            await self._cancels.cancel_run(request.id)
            return await self._run(request.id)

    async def _run(self, run_id: int) -> workflows_pb2.Run:
        row = await self._database.fetch_one("get_run", id=run_id)
        if row is None:
            raise NotFound("run", run_id)
        ids = [step["id"] for step in await self._database.fetch("list_steps", run_ids=[run_id])]
        jobs = await self._database.fetch("get_jobs", ids=ids)
        stored = await reading.stored_output(self._database, jobs)
        return encode.run(row, _steps(row, jobs, stored))


def _steps(run: Row, jobs: list[Row], stored: encode.StoredOutput) -> Iterator[workflows_pb2.RunStep]:
    """Yield the steps of the snapshot in order, those that were reached with their job."""
    reached = {job["step_key"]: job for job in jobs}
    for step in from_snapshot(orjson.loads(run["definition"])).steps:
        job = reached.get(step.key)
        if job is None:
            yield workflows_pb2.RunStep(key=step.key)
        else:
            yield workflows_pb2.RunStep(key=step.key, job=encode.with_output(encode.job_summary(job), job, stored))
