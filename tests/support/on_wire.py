"""Between the bytes and columns of the hot path and values that tests can read."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from orqestra._dispatch import Assigned, Claimed, Results, wire
from orqestra.model.decision import Ending
from orqestra.model.report import AttemptRef, Reason, Report, Verdict
from orqestra.rpc.peer import VERDICTS
from orqestra.store.database import Row
from orqestra.v1 import worker_pb2 as pb
from orqestra.worker.jobs import Jobs

# The columns of a claim by the names that they have in the table of jobs.
COLUMNS: Final = {
    "session_id": "session_ids",
    "id": "ids",
    "fence": "fences",
    "token": "tokens",
    "type": "types",
    "payload": "payloads",
    "attempt": "attempts",
    "timeout_ms": "timeouts_ms",
    "grace_ms": "graces_ms",
    "run_id": "run_ids",
    "step_key": "step_keys",
    "previous_job_id": "previous_ids",
}


# The server's side


def rows_of(columns: Row) -> list[Mapping[str, Any]]:
    """Return a claim, one row of arrays, as a row for each job, in the order of their ids."""
    nothing = [None] * len(columns["ids"])
    values = [nothing if columns[plural] is None else columns[plural] for plural in COLUMNS.values()]
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in zip(*values, strict=True)]
    return sorted(rows, key=lambda row: row["id"])


def claimed_of(rows: Sequence[Mapping[str, Any]]) -> Claimed:
    """Return rows as the claim that they came from."""
    columns: dict[str, list[Any] | None] = {plural: [row[name] for row in rows] for name, plural in COLUMNS.items()}
    if all(row["run_id"] is None for row in rows):
        columns |= dict.fromkeys(("run_ids", "step_keys", "previous_ids"))
    return Claimed(columns)


def answers_of(acks: bytes) -> list[tuple[AttemptRef, Verdict]]:
    """Return the answers to results that a stream is told to send."""
    told = pb.ResultAcks.FromString(acks).acks
    verdicts = {number: verdict for verdict, number in VERDICTS.items()}
    return [(attempt_of(ack.attempt), verdicts[ack.verdict]) for ack in told]


def is_plain(report: Report) -> bool:
    """Return whether a worker's message would be settled without a report."""
    return (
        (report.ending, report.reason, report.exit_code) == (Ending.SUCCEEDED, Reason.EXITED, 0)
        and (report.exit_signal, report.error, report.truncated) == (None, None, False)
        and (report.stdout is not None and report.stdout_bytes == len(report.stdout))
        and (report.stderr is not None and report.stderr_bytes == len(report.stderr))
        and not (report.killed_processes or report.left_processes)
    )


def results_of(session_id: int, reports: Iterable[Report]) -> Results:
    """Return plain successes as they come on a stream, all in one message."""
    message = pb.WorkerMessage(results=pb.Results(results=[_result(report) for report in reports]))
    parts = wire.results(session_id, message.SerializeToString())
    assert parts is not None
    [results] = parts
    assert results.others() == []
    return results


def _result(report: Report) -> pb.Result:
    assert report.stdout is not None and report.stderr is not None
    return pb.Result(
        attempt=ref_of(report.attempt),
        ok=True,
        reason=report.reason,
        exit_code=report.exit_code,
        stdout=report.stdout,
        stderr=report.stderr,
        stdout_bytes=report.stdout_bytes,
        stderr_bytes=report.stderr_bytes,
        wall_us=report.wall_us,
        user_us=report.user_us,
        system_us=report.system_us,
        max_rss_kb=report.max_rss_kb,
    )


# The worker's side


def accept(jobs: Jobs, assignments: Iterable[pb.Assignment]) -> None:
    """Let a worker take over jobs as they come on its stream."""
    jobs.accept(assigned(assignments, apart=jobs.can_start))


def assigned(assignments: Iterable[pb.Assignment], *, apart: bool) -> Assigned:
    """Return assignments as they come on the stream of a worker."""
    message = pb.ServerMessage(assign=pb.Assign(number=1, jobs=assignments))
    found = wire.assigned(message.SerializeToString(), apart=apart)
    assert found is not None
    return found


def acks_of(acks: Iterable[tuple[pb.AttemptRef, pb.ResultAcks.Verdict]]) -> bytes:
    """Return the message that answers results."""
    told = [pb.ResultAcks.Ack(attempt=attempt, verdict=verdict) for attempt, verdict in acks]
    return pb.ServerMessage(result_acks=pb.ResultAcks(acks=told)).SerializeToString()


def results_in(message: bytes | None) -> list[pb.Result]:
    """Return the results of a message that a worker sends; none if it sends nothing."""
    return [] if message is None else list(pb.WorkerMessage.FromString(message).results.results)


# Both


def ref_of(attempt: AttemptRef) -> pb.AttemptRef:
    """Return an attempt as it is sent."""
    return pb.AttemptRef(job_id=attempt.job_id, fence=attempt.fence, token=attempt.token)


def attempt_of(attempt: pb.AttemptRef) -> AttemptRef:
    """Return an attempt that was sent."""
    return AttemptRef(attempt.job_id, attempt.fence, attempt.token)
