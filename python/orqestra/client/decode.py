"""From protobuf to values. The only place that knows how absence looks on the wire."""

from datetime import UTC, datetime
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from orqestra.client.values import (
    Attempt,
    Backoff,
    BrokenFile,
    Cancelled,
    CancelOutcome,
    Chunk,
    Job,
    JobPage,
    Output,
    OutputStream,
    Run,
    RunPage,
    RunStep,
    Worker,
    Workflow,
    WorkflowList,
)
from orqestra.model.lifecycle import RunState, State
from orqestra.model.retry_rules import Jitter
from orqestra.v1 import jobs_pb2, workflows_pb2

STATES: Final = {getattr(jobs_pb2, f"STATUS_{state.name}"): state for state in State}
STATUSES: Final = {state: number for number, state in STATES.items()}
RUN_STATES: Final = {getattr(workflows_pb2, f"RUN_STATUS_{state.name}"): state for state in RunState}
RUN_STATUSES: Final = {state: number for number, state in RUN_STATES.items()}
JITTERS: Final = {getattr(jobs_pb2, f"JITTER_{jitter.name}"): jitter for jitter in Jitter}
STREAMS: Final = {
    jobs_pb2.STREAM_STDOUT: OutputStream.STDOUT,
    jobs_pb2.STREAM_STDERR: OutputStream.STDERR,
}
OUTCOMES: Final = {getattr(jobs_pb2.CancelledJob, f"OUTCOME_{outcome.name}"): outcome for outcome in CancelOutcome}


def job(message: jobs_pb2.Job) -> Job:
    """Read a job."""
    return Job(
        id=message.id,
        type=message.type,
        status=STATES[message.status],
        queue=message.queue,
        priority=message.priority,
        attempt=message.attempt,
        max_retries=message.max_retries,
        backoff=_backoff(message.backoff),
        retry_on=tuple(message.retry.on),
        retry_never=tuple(message.retry.never),
        exit_code=message.exit_code if message.HasField("exit_code") else None,
        exit_signal=message.exit_signal if message.HasField("exit_signal") else None,
        reason=message.reason or None,
        error=message.error or None,
        output=_output(message),
        worker=message.worker or None,
        labels=dict(message.labels),
        tags=tuple(message.tags),
        payload=message.payload,
        timeout_ms=message.timeout_ms or None,
        grace_ms=message.grace_ms,
        idempotency_key=message.idempotency_key or None,
        run_id=message.run_id or None,
        step=message.step or None,
        fence=message.fence,
        lost=message.lost,
        returned=message.returned,
        cancel_requested=message.cancel_requested,
        created_at=_time(message, "created_at"),
        available_at=_time(message, "available_at"),
        started_at=_time(message, "started_at"),
        finished_at=_time(message, "finished_at"),
        killed_processes=message.killed_processes,
        left_processes=message.left_processes,
        attempts=tuple(_attempt(attempt) for attempt in message.attempts),
    )


def job_page(message: jobs_pb2.ListJobsResponse) -> JobPage:
    """Read a page of jobs."""
    return JobPage(jobs=tuple(job(each) for each in message.jobs), next=message.next or None)


def cancelled(message: jobs_pb2.CancelledJob) -> Cancelled:
    """Read the answer to the cancel of one job."""
    return Cancelled(id=message.id, outcome=OUTCOMES[message.outcome], status=STATES.get(message.status))


def chunk(message: jobs_pb2.OutputChunk) -> Chunk:
    """Read a piece of output."""
    return Chunk(fence=message.fence, stream=STREAMS[message.stream], offset=message.offset, data=message.data)


def worker(message: jobs_pb2.Worker) -> Worker:
    """Read a worker."""
    return Worker(
        id=message.id,
        name=message.name,
        session_id=message.session_id,
        slots=message.slots,
        running=message.running,
        queues=tuple(message.queues),
        labels=dict(message.labels),
        server=message.server,
        draining=message.draining,
        health=message.health,
        connected_at=_time(message, "connected_at"),
        lease_expires_at=_time(message, "lease_expires_at"),
    )


def workflow_list(message: workflows_pb2.ListWorkflowsResponse) -> WorkflowList:
    """Read the definitions and the broken files."""
    return WorkflowList(
        workflows=tuple(
            Workflow(name=each.name, steps=tuple(each.steps), file=each.file) for each in message.workflows
        ),
        broken=tuple(
            BrokenFile(file=each.file, line=each.line or None, problem=each.problem) for each in message.broken
        ),
    )


def run(message: workflows_pb2.Run) -> Run:
    """Read a run."""
    return Run(
        id=message.id,
        workflow=message.workflow,
        status=RUN_STATES[message.status],
        error=message.error or None,
        cancel_requested=message.cancel_requested,
        created_at=_time(message, "created_at"),
        finished_at=_time(message, "finished_at"),
        steps=tuple(
            RunStep(key=step.key, job=job(step.job) if step.HasField("job") else None) for step in message.steps
        ),
    )


def run_page(message: workflows_pb2.ListRunsResponse) -> RunPage:
    """Read a page of runs."""
    return RunPage(runs=tuple(run(each) for each in message.runs), next=message.next or None)


def _backoff(message: jobs_pb2.Backoff) -> Backoff:
    jitter = JITTERS.get(message.jitter, Jitter.FULL)
    return Backoff(base_ms=message.base_ms, factor=message.factor, cap_ms=message.cap_ms, jitter=jitter)


def _attempt(message: jobs_pb2.Attempt) -> Attempt:
    return Attempt(
        number=message.number or None,
        fence=message.fence,
        outcome=message.outcome,
        worker=message.worker or None,
        exit_code=message.exit_code if message.HasField("exit_code") else None,
        exit_signal=message.exit_signal if message.HasField("exit_signal") else None,
        reason=message.reason or None,
        error=message.error or None,
        output=_output(message),
        started_at=_time(message, "started_at"),
        finished_at=_time(message, "finished_at"),
        wall_us=message.wall_us,
        user_us=message.user_us,
        system_us=message.system_us,
        max_rss_kb=message.max_rss_kb,
        killed_processes=message.killed_processes,
        left_processes=message.left_processes,
    )


def _output(message: jobs_pb2.Job | jobs_pb2.Attempt) -> Output:
    return Output(
        stdout=message.stdout,
        stderr=message.stderr,
        stdout_bytes=message.stdout_bytes,
        stderr_bytes=message.stderr_bytes,
        truncated=message.truncated,
    )


def _time(
    message: jobs_pb2.Job | jobs_pb2.Attempt | jobs_pb2.Worker | workflows_pb2.Run, field: str
) -> datetime | None:
    if not message.HasField(field):
        return None
    time: Timestamp = getattr(message, field)
    return time.ToDatetime(tzinfo=UTC)
