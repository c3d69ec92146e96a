"""From the end of a command to what is told of it. Pure."""

import errno
from dataclasses import dataclass
from typing import Final

from orqestra.model.limits import OUTPUT_CHUNK_BYTES, OUTPUT_HEAD_BYTES, OUTPUT_INLINE_BYTES
from orqestra.model.report import Reason
from orqestra.v1.jobs_pb2 import STREAM_STDERR, STREAM_STDOUT, Stream
from orqestra.v1.worker_pb2 import Assignment, Result
from orqestra.worker.supervised import Exit

# As a shell says it: there is no such program; there is one, but it can't be run.
NOT_FOUND: Final = 127
NOT_RUNNABLE: Final = 126
# Why what waits is handed back: the worker ends, or all its slots are taken by what lasts.
DRAINING: Final = "draining"
NO_SLOT: Final = "no slot"
# What the machine lacked, and where it failed before the command was even tried: another worker, or this
# one later, may do better.
MACHINE_STAGES: Final = frozenset({"directory", "stdin", "pipe", "fork", "setup"})
# A look-up in it costs a tenth of what the call of an enumeration does.
REASONS: Final = {reason.value: reason for reason in Reason}
SHORTAGES: Final = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC})


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A part of a stream that is stored before the result is sent; `offset` is where the command wrote it."""

    stream: Stream
    offset: int
    data: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """A `Result`, encoded, and the output that has to be stored before it."""

    result: bytes
    ahead: tuple[Piece, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class HandBack:
    """Nothing of it ran, and that was not its own fault; with `shortage`, this machine lacked something."""

    reason: str
    shortage: bool = False


def outcome(
    exit_: Exit, assignment: Assignment, *, returning: bool, cancelled: bool = False, withdrawn: str = DRAINING
) -> Finished | HandBack:
    """Return what is told of a command that ended.

    `returning`: if it was made to end, that was by the drain, or nobody knows why. `cancelled`: the server
    wanted it to end. `withdrawn`: why it was taken back, if it had not started.
    """
    attempt = assignment.attempt
    if (encoded := exit_.result((attempt.job_id, attempt.fence, attempt.token))) is not None:
        return Finished(result=encoded)
    reason = REASONS[exit_.reason]
    if exit_.stage in MACHINE_STAGES or (exit_.stage == "exec" and exit_.errno in SHORTAGES):
        return HandBack(reason=f"spawn: {exit_.error}", shortage=True)
    if reason is Reason.CANCELLED and not exit_.started_at_us and not cancelled:
        return HandBack(reason=withdrawn)
    ended_by_us = (reason is Reason.CANCELLED or reason is Reason.KILLED_AFTER_GRACE) and not exit_.timed_out
    returned = exit_.stage == "watch" or (returning and ended_by_us)
    result = Result(
        attempt=attempt,
        ok=reason is Reason.EXITED and exit_.exit_code == 0,
        reason=Reason.RETURNED if returned else reason,
        exit_code=_exit_code(exit_),
        exit_signal=exit_.signal,
        error=_error(exit_, assignment),
        stdout_bytes=exit_.stdout_bytes,
        stderr_bytes=exit_.stderr_bytes,
        truncated=exit_.truncated,
        started_at_us=exit_.started_at_us,
        wall_us=exit_.wall_us,
        user_us=exit_.user_us,
        system_us=exit_.system_us,
        max_rss_kb=exit_.max_rss_kb,
        killed_processes=exit_.killed_processes,
        left_processes=exit_.left_processes,
    )
    ahead = _put_output(result, exit_)
    return Finished(result=result.SerializeToString(), ahead=ahead)


def failure(assignment: Assignment, exit_code: int, error: str) -> Finished:
    """Return the result of a job that could not be run by its own fault."""
    result = Result(attempt=assignment.attempt, reason=Reason.SPAWN_FAILED, exit_code=exit_code, error=error)
    return Finished(result=result.SerializeToString())


def cancelled(assignment: Assignment) -> Finished:
    """Return the result of a job that was cancelled before it was started."""
    result = Result(attempt=assignment.attempt, reason=Reason.CANCELLED)
    return Finished(result=result.SerializeToString())


def nothing_done(assignment: Assignment, now_us: int) -> Finished:
    """Return the result of a `noop` job."""
    result = Result(attempt=assignment.attempt, ok=True, reason=Reason.EXITED, exit_code=0, started_at_us=now_us)
    return Finished(result=result.SerializeToString())


def _exit_code(exit_: Exit) -> int | None:
    if exit_.reason != Reason.SPAWN_FAILED.value or exit_.stage == "watch":
        return exit_.exit_code
    # A working directory that is missing is no missing program.
    return NOT_FOUND if exit_.errno == errno.ENOENT and exit_.stage == "exec" else NOT_RUNNABLE


def _error(exit_: Exit, assignment: Assignment) -> str:
    if exit_.errno is not None and exit_.reason == Reason.SPAWN_FAILED.value:
        # First the step and the error by its name, for programs.
        return f"{exit_.stage} {errno.errorcode.get(exit_.errno, exit_.errno)}: {exit_.error}"
    if exit_.error is not None:
        return exit_.error
    ignored = "; it had to be killed" if exit_.killed else ""
    if exit_.timed_out:
        return f"ran longer than its timeout of {assignment.timeout_ms} ms{ignored}"
    return ""


def _put_output(result: Result, exit_: Exit) -> tuple[Piece, ...]:
    """Put what is small into the result; return the pieces of what is not."""
    ahead: list[Piece] = []
    if len(exit_.stdout) <= OUTPUT_INLINE_BYTES:
        result.stdout = exit_.stdout
    else:
        result.stdout_stored = True
        ahead += pieces(STREAM_STDOUT, exit_.stdout, exit_.stdout_bytes)
    if len(exit_.stderr) <= OUTPUT_INLINE_BYTES:
        result.stderr = exit_.stderr
    else:
        result.stderr_stored = True
        ahead += pieces(STREAM_STDERR, exit_.stderr, exit_.stderr_bytes)
    return tuple(ahead)


def pieces(stream: Stream, kept: bytes, total: int) -> list[Piece]:
    """Cut what was kept of `total` bytes: the head from offset 0, the tail where it was written."""
    missing = total - len(kept)
    head_end = OUTPUT_HEAD_BYTES if missing else len(kept)
    starts = (*range(0, head_end, OUTPUT_CHUNK_BYTES), *range(head_end, len(kept), OUTPUT_CHUNK_BYTES))
    return [
        Piece(
            stream=stream,
            offset=start if start < head_end else start + missing,
            data=kept[start : min(end, len(kept))],
        )
        for start, end in zip(starts, (*starts[1:], len(kept)), strict=True)
    ]
