"""How a step of a workflow file is run and retried: read to what it says, or refused with its line."""

import pytest

from orqestra.engine.definitions import parse_definition
from orqestra.model.errors import InvalidDefinition
from orqestra.model.payload import ResourceLimits, ShellPayload, parse_shell
from orqestra.model.retry import RetryPolicy
from orqestra.model.retry_rules import Jitter

HOW = b"""\
name: how
steps:
  - command: a
    retry:
      max: 3
      on: [75, 10-20, signal:KILL, timeout]
      never: oom
      backoff: {base: 250ms, factor: 1.5, cap: 1m30s, jitter: equal}
    nice: 5
    run_as: nobody:100
    allow_background: true
    limits: {open_files: 256, memory_bytes: 512MiB, file_bytes: 4096}
  - command: a
    run_as: 1000
    allow_background: no
    retry: {max: 1}
"""


def test_how_a_step_is_run_and_retried_is_read() -> None:
    first, second = parse_definition("how.yaml", HOW).steps

    assert first.retries == RetryPolicy(
        max_retries=3,
        base_ms=250,
        factor=1.5,
        cap_ms=90_000,
        on=("75", "10-20", "signal:KILL", "timeout"),
        never=("oom",),
        jitter=Jitter.EQUAL,
    )
    assert first.shell == ShellPayload(
        command="a",
        nice=5,
        run_as="nobody:100",
        allow_background=True,
        limits=ResourceLimits(open_files=256, memory_bytes=512 * 1024**2, file_bytes=4096),
    )
    assert second.shell == ShellPayload(command="a", run_as="1000")
    assert second.retries == RetryPolicy(max_retries=1)
    assert parse_shell(first.job().payload) == first.shell


def test_a_file_that_says_nothing_of_it_keeps_its_digest() -> None:
    [step] = parse_definition("plain.yaml", b"name: a\nsteps: [{command: a, retries: 2}]").snapshot()["steps"]

    assert set(step["retries"]) == {"max_retries", "base_ms", "factor", "cap_ms"}
    assert set(step["shell"]) == {"command"}


# Each is the inside of a step that begins in line 3; the line is counted from that line as 1.
BAD_STEPS: list[tuple[str, str, int, str]] = [
    ("retry and retries", "command: a\nretries: 1\nretry: {max: 1}", 3, "retry and retries say the same in two"),
    ("retry is a number", "command: a\nretry: 3", 2, "retry: a mapping is needed, this is a number"),
    ("retry without max", "command: a\nretry: {on: 3}", 2, "retry: max is missing, the number of retries"),
    ("retry with the other's key", "command: a\nretry: {max: 1, base: 1s}", 2, "unknown key 'base' in retry; known"),
    ("on is no word", "command: a\nretry:\n  max: 1\n  on: [3, tmeout]", 4, "on: 'tmeout' is not known; allowed are"),
    ("never runs backwards", "command: a\nretry: {max: 1, never: 9-3}", 2, "never: '9-3' runs backwards; write 3-9"),
    ("on is a mapping", "command: a\nretry: {max: 1, on: {exit: 3}}", 2, "on: a list is needed, this is a mapping"),
    ("on holds a list", "command: a\nretry: {max: 1, on: [[3]]}", 2, "on: text is needed, this is a list"),
    ("jitter", "command: a\nretry: {max: 1, backoff: {jitter: some}}", 2, "jitter: 'some' is not known; allowed are"),
    ("backoff factor", "command: a\nretry:\n  max: 1\n  backoff:\n    factor: 0.5", 5, "factor: 0.5; 1 to 100"),
    ("backoff is a time", "command: a\nretry: {max: 1, backoff: 1s}", 2, "backoff: a mapping is needed, this is text"),
    ("nice is high", "command: a\nnice: 20", 2, "nice: a whole number from 0 to 19 is needed, this is '20'"),
    ("run_as is no account", "command: a\nrun_as: a b", 2, "run_as: 'a b' is not allowed; write user or user:group"),
    ("allow_background is 1", "command: a\nallow_background: 1", 2, "allow_background: true or false is needed"),
    ("unknown limit", "command: a\nlimits: {files: 1}", 2, "unknown key 'files' in limits"),
    ("limit is 0", "command: a\nlimits: {open_files: 0}", 2, "limits.open_files: 0 is not allowed; it must be from 1"),
    ("limit is no size", "command: a\nlimits: {file_bytes: 1GB}", 2, "file_bytes: '1GB' has the unknown unit 'GB'"),
    ("limit is a size", "command: a\nlimits: {processes: 1KiB}", 2, "processes: '1KiB' is not a whole number"),
]


@pytest.mark.parametrize(
    ("inside", "line", "problem"), [row[1:] for row in BAD_STEPS], ids=[row[0] for row in BAD_STEPS]
)
def test_what_is_wrong_in_a_step_is_refused_with_its_line(inside: str, line: int, problem: str) -> None:
    step = "  - " + inside.replace("\n", "\n    ")

    with pytest.raises(InvalidDefinition) as refused:
        parse_definition("bad.yaml", f"name: bad\nsteps:\n{step}\n".encode())

    assert problem in refused.value.problem
    assert refused.value.line == line + 2
