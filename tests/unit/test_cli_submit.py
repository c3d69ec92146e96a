"""What `submit` makes of its words, and how a job's end becomes an exit code."""

import pytest

from orqestra.cli.submit import words_to_run
from orqestra.cli.wait import job_exit_code
from orqestra.client import decode
from orqestra.client.encode import shell_payload
from orqestra.model.errors import InvalidInput
from orqestra.model.payload import parse_shell
from orqestra.v1 import jobs_pb2


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        (["echo", "hello"], ["echo", "hello"]),
        (["echo", "a b", "$HOME", "|"], ["echo", "a b", "$HOME", "|"]),
        (["true"], ["true"]),
        (["/usr/bin/make-it_1.2+x"], ["/usr/bin/make-it_1.2+x"]),
        (["echo hello | wc -c"], ["/bin/sh", "-c", "echo hello | wc -c"]),
        (["echo;ls"], ["/bin/sh", "-c", "echo;ls"]),
        (["./a*"], ["/bin/sh", "-c", "./a*"]),
        (["A=1"], ["/bin/sh", "-c", "A=1"]),
    ],
)
def test_words_are_run_as_they_are_unless_a_single_one_needs_a_shell(words: list[str], arguments: list[str]) -> None:
    assert parse_shell(shell_payload(words_to_run(words))).arguments() == arguments


def test_an_empty_word_is_refused() -> None:
    with pytest.raises(InvalidInput, match="argv"):
        parse_shell(shell_payload(words_to_run([""])))


@pytest.mark.parametrize(
    ("job", "code"),
    [
        (jobs_pb2.Job(status=jobs_pb2.STATUS_COMPLETED, exit_code=0), 0),
        (jobs_pb2.Job(status=jobs_pb2.STATUS_COMPLETED), 0),
        (jobs_pb2.Job(status=jobs_pb2.STATUS_FAILED, exit_code=3, reason="exited"), 3),
        (jobs_pb2.Job(status=jobs_pb2.STATUS_FAILED, exit_signal=9, reason="signalled"), 137),
        (jobs_pb2.Job(status=jobs_pb2.STATUS_FAILED, exit_signal=15, reason="timeout"), 124),
        (jobs_pb2.Job(status=jobs_pb2.STATUS_FAILED, exit_code=127, reason="spawn_failed"), 127),
        (jobs_pb2.Job(status=jobs_pb2.STATUS_FAILED, error="its worker was lost 5 times"), 125),
        (jobs_pb2.Job(status=jobs_pb2.STATUS_CANCELLED, exit_signal=15, reason="cancelled"), 125),
        (jobs_pb2.Job(status=jobs_pb2.STATUS_CANCELLED, exit_code=0), 125),
    ],
)
def test_exit_code_of_a_job(job: jobs_pb2.Job, code: int) -> None:
    assert job_exit_code(decode.job(job)) == code
