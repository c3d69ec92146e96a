"""What workers report, from protobuf to checked values."""

from collections.abc import Iterable
from typing import Final

from orqestra.model import limits
from orqestra.model.decision import Ending
from orqestra.model.errors import InvalidInput
from orqestra.model.job import check_range
from orqestra.model.report import AttemptRef, OutputPiece, Reason, Report
from orqestra.rpc.incoming import decode
from orqestra.v1 import jobs_pb2, worker_pb2

FROM_WORKERS: Final = {
    str(reason): reason
    for reason in (
        Reason.EXITED,
        Reason.SIGNALLED,
        Reason.TIMEOUT,
        Reason.CANCELLED,
        Reason.OOM,
        Reason.KILLED_AFTER_GRACE,
        Reason.RESOURCE_LIMIT,
        Reason.SPAWN_FAILED,
        Reason.RETURNED,
    )
}
ERROR_CHARS: Final = 2000
STREAMS: Final = (jobs_pb2.STREAM_STDOUT, jobs_pb2.STREAM_STDERR)


def attempt_ref(attempt: worker_pb2.AttemptRef) -> AttemptRef:
    """Return the name of an attempt."""
    return AttemptRef(attempt.job_id, attempt.fence, attempt.token)


def reports(session_id: int, results: Iterable[bytes]) -> list[Report]:
    """Return results, each a whole `Result`; one that no worker of ours sends is a failure of its job."""
    return [_report(session_id, decode(worker_pb2.Result, result)) for result in results]


def returned(session_id: int, message: worker_pb2.AssignNack) -> list[Report]:
    """Return the work that is handed back."""
    return [
        Report(
            attempt=attempt_ref(attempt),
            session_id=session_id,
            ending=Ending.RETURNED,
            reason=Reason.RETURNED,
            error=_text(message.reason) or None,
        )
        for attempt in message.attempts
    ]


def held(attempts: Iterable[worker_pb2.HeldAttempt]) -> tuple[tuple[AttemptRef, ...], tuple[AttemptRef, ...]]:
    """Return what a worker holds: what waits or runs there, and what has ended there."""
    waits_or_runs: list[AttemptRef] = []
    ended: list[AttemptRef] = []
    for each in attempts:
        has_ended = each.phase == worker_pb2.HeldAttempt.PHASE_FINISHED
        (ended if has_ended else waits_or_runs).append(attempt_ref(each.attempt))
    return tuple(waits_or_runs), tuple(ended)


def piece(session_id: int, message: worker_pb2.StoreOutput) -> OutputPiece:
    """Return a piece of output."""
    if message.stream not in STREAMS:
        raise InvalidInput("store_output.stream", f"{message.stream}; 1 and 2 are allowed")
    check_range("store_output.offset", message.offset, 0, 2**62)
    check_range("store_output.data", len(message.data), 1, limits.OUTPUT_CHUNK_BYTES)
    return OutputPiece(
        attempt=attempt_ref(message.attempt),
        session_id=session_id,
        stream=message.stream,
        offset=message.offset,
        data=message.data,
    )


def _report(session_id: int, result: worker_pb2.Result) -> Report:
    problem = _problem(result)
    if problem:
        # The failure of that one job, not the end of a stream that all others share.
        return Report(
            attempt=attempt_ref(result.attempt),
            session_id=session_id,
            ending=Ending.FAILED,
            reason=Reason.RESULT_REJECTED,
            error=f"the server refuses the result: {problem}",
        )
    return Report(
        attempt=attempt_ref(result.attempt),
        session_id=session_id,
        ending=_ending(result),
        reason=FROM_WORKERS[result.reason],
        exit_code=result.exit_code if result.HasField("exit_code") else None,
        exit_signal=result.exit_signal if result.HasField("exit_signal") else None,
        error=_text(result.error) or None,
        stdout=None if result.stdout_stored else result.stdout,
        stderr=None if result.stderr_stored else result.stderr,
        stdout_bytes=result.stdout_bytes,
        stderr_bytes=result.stderr_bytes,
        truncated=result.truncated,
        wall_us=result.wall_us,
        user_us=result.user_us,
        system_us=result.system_us,
        max_rss_kb=result.max_rss_kb,
        killed_processes=result.killed_processes,
        left_processes=result.left_processes,
    )


def _problem(result: worker_pb2.Result) -> str | None:
    """Say what in a result no worker of this version sends."""
    if result.reason not in FROM_WORKERS:
        return f"the reason {result.reason[:64]!r} is not known"
    if max(len(result.stdout), len(result.stderr)) > limits.OUTPUT_INLINE_BYTES:
        return f"more than {limits.OUTPUT_INLINE_BYTES} bytes of a stream travel in it"
    used = (result.wall_us, result.user_us, result.system_us, result.max_rss_kb)
    counts = (result.killed_processes, result.left_processes)
    if min(result.stdout_bytes, result.stderr_bytes, *used, *counts) < 0:
        return "sizes, times, memory and counts are never below 0"
    return None


def _ending(result: worker_pb2.Result) -> Ending:
    if result.reason == Reason.RETURNED:
        return Ending.RETURNED
    return Ending.SUCCEEDED if result.ok else Ending.FAILED


def _text(text: str) -> str:
    """Return text that a database can hold, of bounded length."""
    return text.replace("\0", "\\0")[:ERROR_CHARS]
