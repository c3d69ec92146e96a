"""What a command gets to see."""

import pytest

from orqestra.model.limits import PREVIOUS_OUTPUT_BYTES
from orqestra.v1.worker_pb2 import Assignment, AttemptRef
from orqestra.worker.environment import (
    LANG_DEFAULT,
    PATH_DEFAULT,
    as_variable,
    base_environment,
    job_environment,
)

ASSIGNMENT = Assignment(attempt=AttemptRef(job_id=7, fence=3, token=-5), attempt_number=2)


def test_only_what_is_allowed_is_passed_on() -> None:
    own = {b"PATH": b"/p", b"HOME": b"/h", b"TZ": b"UTC", b"DB_URL": b"secret", b"MINE": b"1", b"LC_ALL": b"C"}

    found = base_environment(own, ["MINE", "MISSING"])

    assert found == {b"PATH": b"/p", b"HOME": b"/h", b"LANG": LANG_DEFAULT, b"TZ": b"UTC", b"MINE": b"1"}


def test_path_home_and_language_are_always_there() -> None:
    found = base_environment({b"PATH": b""}, [])

    assert found.keys() == {b"PATH", b"HOME", b"LANG"}
    assert found[b"PATH"] == PATH_DEFAULT
    assert found[b"HOME"].startswith(b"/")


def test_a_command_is_told_its_job() -> None:
    assert job_environment(ASSIGNMENT) == {
        b"ORQESTRA_JOB_ID": b"7",
        b"ORQESTRA_ATTEMPT": b"2",
        b"ORQESTRA_FENCE": b"3",
    }


def test_a_step_is_told_its_run_and_the_output_before_it() -> None:
    step = Assignment(
        attempt=ASSIGNMENT.attempt, attempt_number=1, run_id=9, has_previous_output=True, previous_output=b"x\n"
    )

    told = job_environment(step)

    assert told[b"ORQESTRA_RUN_ID"] == b"9"
    assert told[b"PREVIOUS_OUTPUT"] == b"x"


@pytest.mark.parametrize(
    ("output", "variable"),
    [
        (b"", b""),
        (b"\n\n", b""),
        (b"a\nb\n\n", b"a\nb"),
        (b"a\0b\n\0", b"ab"),
        (b"\xff\xfe\n", b"\xff\xfe"),
        (b"x" * PREVIOUS_OUTPUT_BYTES + b"y\n", b"x" * PREVIOUS_OUTPUT_BYTES),
    ],
)
def test_output_becomes_a_variable_as_in_a_shell(output: bytes, variable: bytes) -> None:
    assert as_variable(output) == variable
