"""What `submit` makes of its words, and how a job's end becomes an exit code."""

import pytest

from orqestra.cli.given_job import Given, spec_of, words_to_run
from orqestra.cli.submit import submit
from orqestra.cli.wait import job_exit_code
from orqestra.client import Jitter, JobSpec, RetryPolicy, decode
from orqestra.client.encode import shell_payload
from orqestra.model.errors import InvalidInput
from orqestra.model.payload import ResourceLimits, ShellPayload, parse_shell
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


def asked_for(*options: str) -> JobSpec:
    """Return the job that a command line asks for."""
    with submit.make_context("submit", [*options, "--", "make"]) as context:
        given = {name: value for name, value in context.params.items() if name in Given.__dataclass_fields__}
        return spec_of(Given(**given))


def test_how_a_command_is_run_becomes_its_payload() -> None:
    spec = asked_for(
        *("--nice=5", "--run-as=nobody", "--allow-background"),
        *("--limit=open_files=256", "--limit=memory_bytes=1GiB"),
    )

    assert parse_shell(spec.payload) == ShellPayload(
        argv=("make",),
        nice=5,
        run_as="nobody",
        allow_background=True,
        limits=ResourceLimits(open_files=256, memory_bytes=1024**3),
    )


def test_what_is_not_said_is_not_in_the_payload() -> None:
    assert asked_for().payload == b'{"argv":["make"]}'
    assert asked_for().retries == RetryPolicy()


def test_retry_rules_are_lists_with_commas_and_may_be_repeated() -> None:
    spec = asked_for(
        *("--retries=3", "--retry-on=75,10-20", "--retry-on=timeout", "--retry-never=signal:KILL"),
        "--backoff-jitter=none",
    )

    assert spec.retries == RetryPolicy(
        max_retries=3, on=("75", "10-20", "timeout"), never=("signal:KILL",), jitter=Jitter.NONE
    )
    assert spec.retries.rules() == "on=10-20,75,timeout never=signal:9 jitter=none"


@pytest.mark.parametrize(
    ("job", "code"),
    [
        (jobs_pb2.Job(status=jobs_pb2.STATUS_COMPLETED, exit_code=0), 0),
        (jobs_pb2.Job(status=jobs_pb2.STATUS_COMPLETED), 0),
        (jobs_pb2.Job(status=jobs_pb2.STATUS_FAILED, exit_code=3, reason="exited"), 3),
        (jobs_pb2.Job(status=jobs_pb2.STATUS_FAILED, exit_signal=9, reason="signalled"), 137),
        (jobs_pb2.Job(status=jobs_pb2.STATUS_FAILED, exit_signal=15, reason="timeout"), 124),
        (jobs_pb2.Job(status=jobs_pb2.STATUS_FAILED, exit_signal=9, reason="killed_after_grace"), 124),
        (jobs_pb2.Job(status=jobs_pb2.STATUS_CANCELLED, exit_signal=9, reason="killed_after_grace"), 125),
        (jobs_pb2.Job(status=jobs_pb2.STATUS_FAILED, exit_signal=9, reason="oom"), 137),
        (jobs_pb2.Job(status=jobs_pb2.STATUS_FAILED, exit_code=127, reason="spawn_failed"), 127),
        (jobs_pb2.Job(status=jobs_pb2.STATUS_FAILED, error="its worker was lost 5 times"), 125),
        (jobs_pb2.Job(status=jobs_pb2.STATUS_CANCELLED, exit_signal=15, reason="cancelled"), 125),
        (jobs_pb2.Job(status=jobs_pb2.STATUS_CANCELLED, exit_code=0), 125),
    ],
)
def test_exit_code_of_a_job(job: jobs_pb2.Job, code: int) -> None:
    assert job_exit_code(decode.job(job)) == code
