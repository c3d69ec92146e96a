"""The calls about workflows: definitions and runs."""

from grpc.aio import Channel

from orqestra.client import decode
from orqestra.client.patience import Caller
from orqestra.client.selection import RunFilter, checked_id
from orqestra.client.values import Run, RunPage, WorkflowList
from orqestra.model.errors import InvalidInput
from orqestra.v1 import workflows_pb2
from orqestra.v1.workflows_pb2_grpc import WorkflowsStub


class Workflows:
    """`client.workflows`. Errors are those of `Client`."""

    def __init__(self, channel: Channel, caller: Caller) -> None:
        self._stub = WorkflowsStub(channel)
        self._caller = caller

    async def list(self) -> WorkflowList:
        """Return the definitions that the server has loaded, and the files it could not load."""
        request = workflows_pb2.ListWorkflowsRequest()
        answer = await self._caller.call(self._stub.ListWorkflows, request, repeatable=True)
        return decode.workflow_list(answer)

    async def trigger(self, name: str, *, key: str = "") -> Run:
        """Start a run of the workflow. A key that is known already answers the first run."""
        try:
            request = workflows_pb2.TriggerWorkflowRequest(name=name, idempotency_key=key)
        except UnicodeEncodeError as error:
            raise InvalidInput("name", f"{error.object!r} is not valid UTF-8") from None
        return decode.run(await self._caller.call(self._stub.TriggerWorkflow, request, repeatable=bool(key)))

    async def run(self, run_id: int) -> Run:
        """Return the run with its steps, without their payloads and attempts."""
        request = workflows_pb2.GetRunRequest(id=checked_id("run_id", run_id))
        return decode.run(await self._caller.call(self._stub.GetRun, request, repeatable=True))

    async def runs(
        self, where: RunFilter | None = None, *, limit: int | None = None, after: int | None = None
    ) -> RunPage:
        """Return one page of runs, newest first, without steps; `after` is the `next` of the page before."""
        request = (where or RunFilter()).request(limit=limit, after=after)
        return decode.run_page(await self._caller.call(self._stub.ListRuns, request, repeatable=True))

    async def cancel(self, run_id: int) -> Run:
        """Stop a run: its running step is told to stop and no further one starts.

        Return the run; one that had ended before is as it was.
        """
        request = workflows_pb2.CancelRunRequest(id=checked_id("run_id", run_id))
        return decode.run(await self._caller.call(self._stub.CancelRun, request, repeatable=False))
