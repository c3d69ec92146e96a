"""The service of clients: submit, read, cancel, retry, watch."""

from collections.abc import AsyncIterator
from typing import Any, Final

from orqestra.engine.cancels import Cancelled, Cancels
from orqestra.engine.core import Core
from orqestra.engine.intake import Intake
from orqestra.engine.live import Live
from orqestra.engine.watch import LOOK_SECONDS, Watch
from orqestra.model import limits
from orqestra.model.errors import InvalidInput
from orqestra.model.lifecycle import TERMINAL, State
from orqestra.rpc import encode, output, reading
from orqestra.rpc.statuses import Context, as_status
from orqestra.rpc.submit_stream import SubmitStreams
from orqestra.rpc.submits import Submits
from orqestra.v1 import jobs_pb2, jobs_pb2_grpc

OUTCOME: Final = jobs_pb2.CancelledJob


class JobsService(jobs_pb2_grpc.JobsServicer):
    """Jobs, as jobs.proto describes them."""

    def __init__(self, *, core: Core, intake: Intake, cancels: Cancels, watch: Watch, live: Live) -> None:
        self._clock = core.clock
        self._database = core.callers
        self._intake = intake
        self._cancels = cancels
        self._watch = watch
        self._live = live
        self._submits = Submits()
        self._streams = SubmitStreams(intake, self._submits)

    async def Submit(self, request: bytes, context: Context) -> jobs_pb2.SubmitResponse:
        async with as_status(context):
            [job_id] = await self._intake.submit(self._submits.single(request))
            return jobs_pb2.SubmitResponse(id=job_id)

    async def SubmitBatch(self, request: bytes, context: Context) -> jobs_pb2.SubmitBatchResponse:
        async with as_status(context):
            return jobs_pb2.SubmitBatchResponse(ids=await self._intake.submit(self._submits.batch(request)))

    async def SubmitStream(self, _requests: Any, context: Context) -> None:
        async with as_status(context):
            await self._streams.serve(context)

    def end_streams(self) -> None:
        """Take no more submits on streams; those that were taken are answered before their stream ends."""
        self._streams.end()

    async def GetJob(self, request: jobs_pb2.GetJobRequest, context: Context) -> jobs_pb2.Job:
        async with as_status(context):
            return await reading.whole_job(self._database, request.id, with_output=not request.without_output)

    async def ListJobs(self, request: jobs_pb2.ListJobsRequest, context: Context) -> jobs_pb2.ListJobsResponse:
        async with as_status(context):
            return await reading.page_of_jobs(self._database, request)

    async def CancelJob(self, request: jobs_pb2.CancelJobRequest, context: Context) -> jobs_pb2.CancelJobResponse:
        async with as_status(context):
            if not 1 <= len(request.ids) <= limits.CANCEL_JOBS:
                raise InvalidInput("ids", f"{len(request.ids)} ids; 1 to {limits.CANCEL_JOBS} are allowed")
            cancelled = await self._cancels.cancel(request.ids)
            return jobs_pb2.CancelJobResponse(jobs=map(_cancelled, cancelled))

    async def RetryJob(self, request: jobs_pb2.RetryJobRequest, context: Context) -> jobs_pb2.Job:
        async with as_status(context):
            await self._cancels.retry(request.id)
            return await reading.whole_job(self._database, request.id, with_output=False)

    async def WatchJob(self, request: jobs_pb2.WatchJobRequest, context: Context) -> AsyncIterator[jobs_pb2.Job]:
        async with as_status(context):
            await _take_call(context)
            with self._watch.watching(request.id) as event:
                seen: tuple[str, int, bool] | None = None
                while True:
                    event.clear()
                    row = await reading.find_job(self._database, request.id)
                    now = (row["state"], row["fence"], row["cancel_requested_at"] is not None)
                    if now != seen:
                        seen = now
                        yield encode.job_summary(row)
                    if row["state"] in TERMINAL:
                        return
                    await self._clock.wait(event, LOOK_SECONDS)

    async def GetOutput(
        self, request: jobs_pb2.GetOutputRequest, context: Context
    ) -> AsyncIterator[jobs_pb2.OutputChunk]:
        async with as_status(context):
            await _take_call(context)
            reader = output.OutputReader(self._clock, self._database, self._live, self._watch)
            async for chunk in reader.read(request):
                yield chunk

    async def ListWorkers(self, request: jobs_pb2.ListWorkersRequest, context: Context) -> jobs_pb2.ListWorkersResponse:
        async with as_status(context):
            rows = await self._database.fetch("list_workers")
            return jobs_pb2.ListWorkersResponse(workers=map(encode.worker, rows))


async def _take_call(context: Context) -> None:
    """Tell the caller of a stream at once that it is served: the first message may be long in coming."""
    await context.send_initial_metadata(())


def _cancelled(job: Cancelled) -> jobs_pb2.CancelledJob:
    if job.was is None or job.state is None:
        return jobs_pb2.CancelledJob(id=job.id, outcome=OUTCOME.OUTCOME_NOT_FOUND)
    if job.state is State.RUNNING:
        outcome = OUTCOME.OUTCOME_STOPPING
    elif job.was in TERMINAL:
        outcome = OUTCOME.OUTCOME_FINISHED
    else:
        outcome = OUTCOME.OUTCOME_CANCELLED
    return jobs_pb2.CancelledJob(id=job.id, outcome=outcome, status=encode.STATUSES[job.state])
