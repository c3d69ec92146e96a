"""From the end of a command to what is told of it, and how large output is cut."""

import errno
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orqestra.model.limits import OUTPUT_CHUNK_BYTES, OUTPUT_HEAD_BYTES, OUTPUT_TAIL_BYTES
from orqestra.v1.jobs_pb2 import STREAM_STDERR, STREAM_STDOUT
from orqestra.v1.worker_pb2 import Assignment, AttemptRef, Result
from orqestra.worker import portable
from orqestra.worker.outcome import Finished, HandBack, Piece, outcome, pieces
from orqestra.worker.supervised import Exit, Supervisor
from tests.support import worker_peer
from tests.support.supervising import exits, run, seen, shell, supervision

ASSIGNMENT = Assignment(attempt=AttemptRef(job_id=1, fence=1, token=1), timeout_ms=50)


SHORTAGES = ("EAGAIN", "ENOMEM", "EMFILE", "ENFILE", "ENOSPC")
FAULTS = [
    ("exec", "ENOENT", 127),
    ("exec", "EACCES", 126),
    ("exec", "E2BIG", 126),
    ("exec", "ENOTDIR", 126),
    ("exec", "ELOOP", 126),
    ("cwd", "ENOENT", 126),
    ("cwd", "EACCES", 126),
    ("user", "EPERM", 126),
]


@pytest.fixture(scope="module")
def supervisor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisor]:
    with supervision(tmp_path_factory.mktemp("worker")) as kept:
        yield kept.open()


def finished(exit_: Exit, *, returning: bool = False) -> tuple[Result, tuple[Piece, ...]]:
    ended = outcome(exit_, ASSIGNMENT, returning=returning)
    assert isinstance(ended, Finished)
    return Result.FromString(ended.result), ended.ahead


def told(exit_: Exit, *, returning: bool = False) -> Result:
    return finished(exit_, returning=returning)[0]


@pytest.mark.everywhere
@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("true", Result(ok=True, reason="exited", exit_code=0)),
        ("exit 7", Result(ok=False, reason="exited", exit_code=7)),
        ("kill -SEGV $$", Result(ok=False, reason="signalled", exit_signal=11)),
    ],
)
def test_a_command_ends_well_or_not(supervisor: Supervisor, script: str, expected: Result) -> None:
    result = told(run(supervisor, shell(script)))

    assert (result.ok, result.reason) == (expected.ok, expected.reason)
    for field in ("exit_code", "exit_signal"):
        assert result.HasField(field) == expected.HasField(field)
        assert getattr(result, field) == getattr(expected, field)


@pytest.mark.everywhere
def test_a_timeout_counts_even_if_the_command_then_ends_well(supervisor: Supervisor) -> None:
    exit_ = run(supervisor, shell("trap 'exit 0' TERM; while :; do sleep 0.01; done", timeout_ms=50))

    result = told(exit_)

    assert (result.ok, result.reason, result.exit_code) == (False, "timeout", 0)
    assert result.error == "ran longer than its timeout of 50 ms"


@pytest.mark.everywhere
def test_only_what_the_drain_ended_is_returned(supervisor: Supervisor) -> None:
    ended_by_itself = run(supervisor, shell("exit 0"))
    supervisor.start([shell("echo here; exec sleep 30", key=2)])
    # Cancelled before it has started, it would be handed back as one that never ran.
    seen(supervisor, b"here", key=2)
    supervisor.cancel([2])
    (ended_by_us,) = exits(supervisor, 1)
    supervisor.forget([2])

    assert told(ended_by_itself, returning=True).ok
    assert told(ended_by_us, returning=True).reason == "returned"
    assert told(ended_by_us, returning=False).reason == "cancelled"


@pytest.mark.everywhere
@pytest.mark.parametrize(
    ("fields", "exit_code"),
    [
        ({"argv": [b"/nowhere/program"]}, 127),
        ({"argv": [b"no-such-program"]}, 127),
        ({"argv": [b"/etc/passwd"]}, 126),
        ({"argv": [b"/bin/true"], "cwd": b"/nowhere"}, 126),
        ({"argv": [b"/bin/true", b"x" * 200_000]}, 126),
        ({"argv": [b"/bin/true", b"a\0b"]}, 126),
    ],
)
def test_a_job_that_cannot_be_run_fails_as_in_a_shell(
    supervisor: Supervisor, fields: dict[str, Any], exit_code: int
) -> None:
    result = told(run(supervisor, shell("", **fields)))

    assert (result.ok, result.reason, result.exit_code) == (False, "spawn_failed", exit_code)
    assert result.error


def refused(stage: str, error: str) -> Finished | HandBack:
    """Return what is told of a command that was not started; the end of one can be made by hand of the fallback's."""
    told_of: Any = portable.Exit(
        key=1, tag=b"", reason="spawn_failed", stage=stage, errno=getattr(errno, error), error=f"{stage}: {error}"
    )
    return outcome(told_of, worker_peer.shell(1, "true"), returning=False)


@pytest.mark.parametrize("error", SHORTAGES)
def test_what_the_machine_lacks_to_run_a_program_is_not_the_jobs_fault(error: str) -> None:
    handed_back = refused("exec", error)

    assert isinstance(handed_back, HandBack)
    assert handed_back.shortage


@pytest.mark.parametrize(("stage", "error", "exit_code"), FAULTS)
def test_what_a_job_asks_for_and_cannot_have_is_its_own_fault(stage: str, error: str, exit_code: int) -> None:
    failed = refused(stage, error)

    assert isinstance(failed, Finished)
    result = Result.FromString(failed.result)
    assert (result.ok, result.reason, result.exit_code) == (False, "spawn_failed", exit_code)


@pytest.mark.everywhere
def test_small_output_travels_and_large_goes_ahead(supervisor: Supervisor) -> None:
    exit_ = run(supervisor, shell("head -c 8192 /dev/zero; head -c 8193 /dev/zero >&2"))

    result, ahead = finished(exit_)

    assert (len(result.stdout), result.stdout_stored) == (8192, False)
    assert (len(result.stderr), result.stderr_stored) == (0, True)
    assert [(piece.stream, piece.offset, len(piece.data)) for piece in ahead] == [(STREAM_STDERR, 0, 8193)]


@pytest.mark.parametrize(
    "script",
    [
        "true",
        "exit 7",
        "echo out; echo err >&2; exit 255",
        "head -c 8192 /dev/zero; printf '\\0\\377' >&2",
        "sleep 30 & sleep 30 & exit 0",
    ],
)
def test_what_ended_by_itself_is_encoded_as_protobuf_would(supervisor: Supervisor, script: str) -> None:
    exit_ = run(supervisor, shell(script))

    encoded = exit_.result((1, -2, 2**62))

    same = ("started_at_us", "wall_us", "user_us", "system_us", "max_rss_kb", "killed_processes", "left_processes")
    assert encoded is not None
    assert Result.FromString(encoded) == Result(
        attempt=AttemptRef(job_id=1, fence=-2, token=2**62),
        ok=exit_.exit_code == 0,
        reason="exited",
        exit_code=exit_.exit_code,
        stdout=exit_.stdout,
        stderr=exit_.stderr,
        stdout_bytes=exit_.stdout_bytes,
        stderr_bytes=exit_.stderr_bytes,
        **{name: getattr(exit_, name) for name in same},
    )
    assert exit_.wall_us > 0


@pytest.mark.parametrize("script", ["kill -9 $$", "head -c 8193 /dev/zero", "head -c 2000000 /dev/zero >&2"])
def test_all_other_ends_are_looked_at(supervisor: Supervisor, script: str) -> None:
    assert run(supervisor, shell(script)).result((1, 1, 1)) is None


@given(total=st.integers(1, 3 * OUTPUT_HEAD_BYTES + OUTPUT_TAIL_BYTES))
def test_pieces_are_the_kept_bytes_where_they_were_written(total: int) -> None:
    kept_bytes = min(total, OUTPUT_HEAD_BYTES + OUTPUT_TAIL_BYTES)
    head = min(total, OUTPUT_HEAD_BYTES)
    kept = bytes(kept_bytes)

    cut = pieces(STREAM_STDOUT, kept, total)

    places = [(piece.offset, piece.offset + len(piece.data)) for piece in cut]
    assert all(0 < end - start <= OUTPUT_CHUNK_BYTES for start, end in places)
    covered = merged(places)
    assert covered == ([(0, total)] if kept_bytes == total else [(0, head), (total - OUTPUT_TAIL_BYTES, total)])


def test_pieces_put_together_are_what_was_kept() -> None:
    kept = json.dumps(list(range(100_000))).encode()

    cut = pieces(STREAM_STDOUT, kept, len(kept))

    assert b"".join(piece.data for piece in cut) == kept


def merged(places: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join ranges that meet."""
    joined: list[tuple[int, int]] = []
    for start, end in places:
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined
