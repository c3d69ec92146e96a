"""What workers report, checked before it comes near the engine."""

from typing import Any

import pytest

from orqestra.model import limits
from orqestra.model.decision import Ending
from orqestra.model.errors import InvalidInput
from orqestra.model.report import AttemptRef, Reason
from orqestra.rpc import results
from orqestra.v1.jobs_pb2 import STREAM_STDERR
from orqestra.v1.worker_pb2 import AssignNack, Result, StoreOutput
from orqestra.v1.worker_pb2 import AttemptRef as WireRef

REF = WireRef(job_id=1, fence=2, token=3)


def report(**result: Any) -> Any:
    [only] = results.reports(9, [Result(**{"attempt": REF, "reason": "exited", **result}).SerializeToString()])
    return only


@pytest.mark.parametrize(
    ("result", "ending"),
    [
        ({"ok": True}, Ending.SUCCEEDED),
        ({"ok": False}, Ending.FAILED),
        ({"ok": False, "reason": "timeout"}, Ending.FAILED),
        ({"ok": True, "reason": "returned"}, Ending.RETURNED),
        ({"ok": False, "reason": "returned"}, Ending.RETURNED),
    ],
)
def test_the_ending_follows_from_what_the_worker_says(result: dict[str, Any], ending: Ending) -> None:
    assert report(**result).ending is ending


@pytest.mark.parametrize("reason", ["oom", "killed_after_grace", "resource_limit", "spawn_failed"])
def test_the_reason_is_kept_as_the_worker_says_it(reason: str) -> None:
    found = report(reason=reason, exit_signal=9, killed_processes=2, left_processes=1)

    assert (found.ending, found.reason) == (Ending.FAILED, Reason(reason))
    assert (found.killed_processes, found.left_processes) == (2, 1)


def test_the_session_is_that_of_the_stream_and_absent_is_not_zero() -> None:
    found = report(ok=True)

    assert (found.session_id, found.attempt) == (9, AttemptRef(1, 2, 3))
    assert (found.exit_code, found.exit_signal, found.error, found.stdout) == (None, None, None, b"")
    assert report(exit_code=0).exit_code == 0


def test_output_stored_ahead_is_left_to_its_pieces() -> None:
    found = report(ok=True, stdout_stored=True, stderr=b"e")

    assert (found.stdout, found.stderr) == (None, b"e")


def test_an_error_is_text_that_a_database_can_hold() -> None:
    found = report(error="a\0b" + "x" * 10_000)

    assert "\0" not in found.error
    assert len(found.error) == results.ERROR_CHARS


@pytest.mark.parametrize(
    ("result", "told"),
    [
        ({"reason": ""}, "reason"),
        ({"reason": "worker_lost"}, "worker_lost"),
        ({"stdout": b"x" * (limits.OUTPUT_INLINE_BYTES + 1)}, "8192 bytes"),
        ({"stderr": b"x" * (limits.OUTPUT_INLINE_BYTES + 1)}, "8192 bytes"),
        ({"stderr_bytes": -1}, "below 0"),
        ({"max_rss_kb": -1}, "below 0"),
        ({"killed_processes": -1}, "below 0"),
        ({"left_processes": -1}, "below 0"),
    ],
)
def test_a_result_that_no_worker_of_ours_sends_is_the_failure_of_its_job(result: dict[str, Any], told: str) -> None:
    found = report(ok=True, **result)

    assert (found.ending, found.reason, found.stdout) == (Ending.FAILED, Reason.RESULT_REJECTED, b"")
    assert told in found.error


def test_what_is_handed_back_is_returned_with_its_reason() -> None:
    [found] = results.returned(9, AssignNack(attempts=[REF], reason="no\0memory"))

    assert (found.ending, found.session_id, found.attempt) == (Ending.RETURNED, 9, AttemptRef(1, 2, 3))
    assert found.error == "no\\0memory"


def test_a_piece_of_output_has_a_stream_and_bounded_data() -> None:
    data = b"x" * limits.OUTPUT_CHUNK_BYTES
    found = results.piece(9, StoreOutput(attempt=REF, stream=STREAM_STDERR, offset=5, data=data))

    assert (found.stream, found.offset, len(found.data)) == (2, 5, limits.OUTPUT_CHUNK_BYTES)
    for bad in (StoreOutput(attempt=REF, data=b"x"), StoreOutput(attempt=REF, stream=STREAM_STDERR, data=data + b"x")):
        with pytest.raises(InvalidInput, match=r"^store_output\."):
            results.piece(9, bad)
