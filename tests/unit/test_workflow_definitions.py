"""A workflow file is read to what it says, or refused with its line."""

from typing import Any

import pytest

from orqestra.engine.definitions import declared_name, parse_definition
from orqestra.model import limits
from orqestra.model.errors import InvalidDefinition
from orqestra.model.payload import ShellPayload, parse_shell
from orqestra.model.retry import RetryPolicy
from orqestra.model.workflow import Step

FULL = b"""\
name: full.example
steps:
  - name: build
    command: |
      make all
      echo done
    env: {LEVEL: 3, FLAG: yes, MODE: 0644, DAY: 2026-01-31, EMPTY: ""}
    cwd: /srv/shop
    stdin: some text
    retries: {max: 5, base: 250ms, factor: 1.5, cap: 1m30s}
    timeout: 1h
    grace: 1.5s
    queue: builds
    priority: 9
    labels: {arch: x86_64, gpu: true}
  - argv: [/bin/sleep, 1, "", =, <<]
    retries: 2
    timeout: 30
  - command: true
"""


def test_every_key_is_read() -> None:
    full = parse_definition("full.yaml", FULL)

    build, pause, last = full.steps
    assert full.name == "full.example"
    assert [step.key for step in full.steps] == ["build", "step-2", "step-3"]
    assert [step.index for step in full.steps] == [0, 1, 2]
    assert [step.needs for step in full.steps] == [(), ("build",), ("step-2",)]
    assert build.shell == ShellPayload(
        command="make all\necho done\n",
        env={"LEVEL": "3", "FLAG": "yes", "MODE": "0644", "DAY": "2026-01-31", "EMPTY": ""},
        cwd="/srv/shop",
        stdin="some text",
    )
    assert build.retries == RetryPolicy(max_retries=5, base_ms=250, factor=1.5, cap_ms=90_000)
    assert (build.timeout_ms, build.grace_ms, build.queue, build.priority) == (3_600_000, 1500, "builds", 9)
    assert build.labels == {"arch": "x86_64", "gpu": "true"}
    assert pause.shell == ShellPayload(argv=("/bin/sleep", "1", "", "=", "<<"))
    assert (pause.retries, pause.timeout_ms) == (RetryPolicy(max_retries=2), 30_000)
    assert last == Step(key="step-3", index=2, shell=ShellPayload(command="true"), needs=("step-2",))


def test_a_step_becomes_the_job_it_describes() -> None:
    job = parse_definition("full.yaml", FULL).steps[0].job()

    assert (job.type, job.queue, job.priority, job.requires) == (
        "shell",
        "builds",
        9,
        ("arch=x86_64", "gpu=true"),
    )
    assert (job.timeout_ms, job.grace_ms, job.retries.max_retries) == (3_600_000, 1500, 5)
    assert parse_shell(job.payload).command == "make all\necho done\n"


BAD_FILES: list[tuple[str, str, int, str]] = [
    # the file as a whole
    ("empty", "", 0, "is empty; a mapping with name and steps is needed"),
    ("only a comment", "# nothing\n", 0, "is empty"),
    ("null", "~", 1, "a workflow: a mapping is needed, this is nothing"),
    ("a list at the top", "\n- name: a\n", 2, "a workflow: a mapping is needed, this is a list"),
    ("a text at the top", "hello", 1, "a workflow: a mapping is needed, this is text"),
    ("two documents", "name: a\n---\nname: b\n", 2, "but found another document"),
    ("no steps", "name: a\n", 1, "steps is missing; a workflow has name and steps"),
    ("no name", "steps: [{command: a}]\n", 1, "name is missing; a workflow has name and steps"),
    ("unknown key", "name: a\nstesp: []\n", 2, "unknown key 'stesp' in a workflow; did you mean steps?"),
    ("very unknown key", "name: a\nxyz: []\n", 2, "unknown key 'xyz' in a workflow; known are name, steps"),
    (
        "duplicate key",
        "name: a\nsteps: [{command: a}]\nname: b\n",
        3,
        "the key 'name' is there twice, first in line 1",
    ),
    ("key is a list", "? [a]\n: b\n", 1, "a key of a workflow: text is needed, this is a list"),
    # names
    (
        "name is a number",
        "name: 5\nsteps: [{command: a}]",
        1,
        'name: text is needed, this is a number; write "5" in',
    ),
    ("name is nothing", "name:\nsteps: [{command: a}]", 1, "name: text is needed, this is nothing"),
    ("name is a path", "name: ../../etc/x\nsteps: [{command: a}]", 1, "name: '../../etc/x' is not allowed"),
    (
        "name is too long",
        f"name: {'a' * 129}\nsteps: [{{command: a}}]",
        1,
        "is not allowed; a name has 1 to 128",
    ),
    ("name ends in a newline", 'name: "a\\n"\nsteps: [{command: a}]', 1, "name: 'a\\n' is not allowed"),
    ("name with a NUL", 'name: "a\\0"\nsteps: [{command: a}]', 1, "name: holds a NUL character"),
    ("name turned around", 'name: "a\\u202eb"\nsteps: [{command: a}]', 1, "name: 'a\\u202eb' is not allowed"),
    # steps
    ("steps is text", "name: a\nsteps: b\n", 2, "steps: a list is needed, this is text"),
    ("zero steps", "name: a\nsteps: []\n", 2, "steps: 0 steps; 1 to 1000 are allowed"),
    ("too many steps", "name: a\nsteps:\n" + "- command: a\n" * 1001, 3, "steps: 1001 steps; 1 to 1000"),
    ("step is text", "name: a\nsteps:\n- echo\n", 3, "step 1: a mapping is needed, this is text"),
    (
        "same names",
        "name: a\nsteps:\n- {name: x, command: a}\n- {name: x, command: b}",
        4,
        "two steps are named x, the first in line 3",
    ),
    (
        "name of an unnamed step",
        "name: a\nsteps:\n- {name: step-2, command: a}\n- command: b",
        4,
        "two steps are named step-2",
    ),
]

# Each is the inside of a step that begins in line 3; the line is counted from that line as 1.
BAD_STEPS: list[tuple[str, str, int, str]] = [
    ("unknown key", "command: a\ncomand: b", 2, "unknown key 'comand' in step 1; did you mean command?"),
    ("other case", "Command: a", 1, "unknown key 'Command' in step 1; did you mean command?"),
    ("no command", "timeout: 5s", 1, "step 1 has no command (for /bin/sh) and no argv"),
    ("both", "command: a\nargv: [b]", 2, "step 1 has both command and argv"),
    ("command is a number", "command: 42", 1, "command: text is needed, this is a number"),
    ("command is nothing", "command:", 1, "command: text is needed, this is nothing"),
    ("command is a list", "command: [a, b]", 1, "a command without a shell is argv"),
    ("command is a mapping", "command: {a: b}", 1, "command: text is needed, this is a mapping"),
    ("command is blank", "command: ' '", 1, "command: is empty"),
    ("command with a NUL", 'command: "a\\0b"', 1, "command: holds a NUL"),
    ("argv is text", "argv: ls -l", 1, "argv: a list is needed, this is text"),
    ("argv is empty", "argv: []", 1, "argv: is empty"),
    ("argv holds a list", "argv:\n- a\n- [b]", 3, "argv: text is needed, this is a list"),
    ("argv holds nothing", "argv: [a, ~]", 1, "argv: text is needed, this is nothing"),
    ("env is a list", "command: a\nenv: [A=b]", 2, "env: a mapping is needed, this is a list"),
    ("env value is nothing", "command: a\nenv:\n  A:\n", 3, "env A: text is needed, this is nothing"),
    ("env name", "command: a\nenv: {A-B: c}", 2, "env: 'A-B' is not a name"),
    ("env is large", f"command: a\nenv: {{A: {'x' * 65536}}}", 2, "at most 65536 are allowed"),
    ("env twice", "command: a\nenv:\n  A: b\n  A: c", 4, "the key 'A' is there twice"),
    ("stdin with a NUL", 'command: a\nstdin: "\\x00"', 2, "stdin: holds a NUL"),
    ("cwd is a list", "command: a\ncwd: [b]", 2, "cwd: text is needed, this is a list"),
    (
        "retries is negative",
        "command: a\nretries: -1",
        2,
        "retries: a whole number from 0 to 1000 is needed, this is '-1'",
    ),
    ("retries is large", "command: a\nretries: 1001", 2, "retries: a whole number from 0 to 1000"),
    ("retries is huge", f"command: a\nretries: {'9' * 9999}", 2, "retries: a whole number from 0 to 1000"),
    ("retries is text", "command: a\nretries: '3'", 2, "retries: a whole number from 0 to 1000 is needed"),
    ("retries is octal", "command: a\nretries: 010", 2, "this is '010'"),
    ("retries is a fraction", "command: a\nretries: 1.5", 2, "retries: a whole number"),
    ("retries is a list", "command: a\nretries: [3]", 2, "retries: a mapping is needed, this is a list"),
    ("retries without max", "command: a\nretries: {base: 1s}", 2, "retries: max is missing"),
    ("retries with unknown key", "command: a\nretries:\n  max: 1\n  bas: 1s", 4, "did you mean base?"),
    (
        "factor is small",
        "command: a\nretries:\n  max: 1\n  factor: 0.5",
        4,
        "factor: 0.5; 1 to 100 is allowed",
    ),
    (
        "factor is not a number",
        "command: a\nretries:\n  max: 1\n  factor: .nan",
        4,
        "factor: a number such as 2",
    ),
    ("factor is infinite", "command: a\nretries:\n  max: 1\n  factor: .inf", 4, "factor: a number such as 2"),
    ("cap is long", "command: a\nretries:\n  max: 1\n  cap: 25h", 4, "cap: '25h' is too long; at most 1d"),
    ("timeout is negative", "command: a\ntimeout: -1", 2, "timeout: '-1' is negative"),
    ("timeout is long", "command: a\ntimeout: 31d", 2, "timeout: '31d' is too long; at most 30d is allowed"),
    (
        "timeout unit",
        "command: a\ntimeout: 5 parsecs",
        2,
        "timeout: '5 parsecs' has the unknown unit 'parsecs'",
    ),
    ("timeout is a clock", "command: a\ntimeout: 1:30", 2, "timeout: '1:30'"),
    ("timeout is not a number", "command: a\ntimeout: .nan", 2, "timeout: '.nan' is not a duration"),
    ("timeout is a list", "command: a\ntimeout: [1]", 2, "timeout: text is needed, this is a list"),
    ("grace is long", "command: a\ngrace: 2h", 2, "grace: '2h' is too long; at most 1h is allowed"),
    ("queue is a number", "command: a\nqueue: 5", 2, "queue: text is needed, this is a number"),
    ("queue is no name", "command: a\nqueue: a b", 2, "queue: 'a b' is not a name"),
    (
        "priority is 10",
        "command: a\npriority: 10",
        2,
        "priority: a whole number from 0 to 9 is needed, this is '10'",
    ),
    ("priority is a word", "command: a\npriority: high", 2, "priority: a whole number from 0 to 9"),
    ("label with =", "command: a\nlabels: {a=b: c}", 2, "labels: 'a=b=c' is not a label"),
    (
        "too many labels",
        f"command: a\nlabels: {{{', '.join(f'l{n}: x' for n in range(33))}}}",
        2,
        "labels: 33 labels",
    ),
    ("merge key", "command: a\nenv: &e {A: b}\n<<: *e", 3, "merge keys (<<) are not supported"),
    ("unclosed bracket", "command: a\nenv: {A: b", 2, "is not YAML: while parsing a flow mapping"),
    ("colon in a value", "command: echo a: b", 1, "a value with ': ' in it that is not in quotes"),
    ("tab", "command: a\n\ttimeout: 5", 2, "a tab; YAML is indented with spaces only"),
    ("at sign", "command: @a", 1, "a value cannot begin with '@'; write it in quotes"),
    ("no such anchor", "command: *a", 1, "found undefined alias"),
    ("anchor twice", "command: &a b\ncwd: &a /", 2, "each anchor (&name) may be set once"),
    (
        "a tag",
        "command: !!python/object/apply:os.system [id]",
        1,
        "tags such as '!!python/object/apply:os.system'",
    ),
    ("a harmless tag", "command: !!str 5", 1, "tags such as '!!str' are not allowed"),
    ("binary", "command: !!binary aGk=", 1, "tags such as '!!binary' are not allowed"),
    ("loop", "command: a\nenv: &e\n  A: *e", 3, "the alias *e stands for what it is part of"),
    ("deep", "command: a\nenv: " + "[" * 40 + "]" * 40, 2, "is nested deeper than 32 levels"),
    ("many aliases", "command: &c a\nargv: [" + "*c, " * 101 + "]", 2, "has more than 100 aliases"),
    (
        "alias bomb",
        f"command: a\nargv: [&a {'x' * 20000}, {'*a, ' * 60}]",
        2,
        "is larger than 1048576 characters",
    ),
]


def _rows(table: list[tuple[str, str, int, str]]) -> list[Any]:
    return [pytest.param(*row, id=title) for title, *row in table]


@pytest.mark.parametrize(("content", "line", "problem"), _rows(BAD_FILES))
def test_a_bad_file_is_refused_with_its_line(content: str, line: int, problem: str) -> None:
    _assert_refused(content.encode(), line, problem)


@pytest.mark.parametrize(("inside", "line", "problem"), _rows(BAD_STEPS))
def test_a_bad_step_is_refused_with_its_line(inside: str, line: int, problem: str) -> None:
    step = "  - " + inside.replace("\n", "\n    ").replace("    \t", "\t")

    _assert_refused(f"name: bad\nsteps:\n{step}\n".encode(), line + 2, problem)


@pytest.mark.parametrize(
    ("data", "line", "problem"),
    [
        (b"name: a\nsteps: \xff\n", 2, "is not UTF-8: byte 0xff"),
        ("name: a\n".encode("utf-16"), 1, "is not UTF-8: byte 0xff"),
        (b"name: a\n\nx: \0\n", 3, "holds the control character U+0000"),
        (b"name: a\x1b[31m\n", 1, "holds the control character U+001B"),
        (b"#" * (limits.DEFINITION_BYTES + 1), 0, "is larger than 262144 bytes"),
    ],
)
def test_bytes_that_are_no_text_are_refused(data: bytes, line: int, problem: str) -> None:
    _assert_refused(data, line, problem)


def test_a_doubling_alias_bomb_is_refused() -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]

    _assert_refused("\n".join(levels).encode(), 6, "is larger than 1048576 characters with its aliases expanded")


def test_a_large_payload_is_refused() -> None:
    # each control character is six bytes of JSON
    arguments = ", ".join(["*a"] * 90)
    content = f'name: a\nsteps:\n- argv: [/bin/echo, &a "{chr(92)}x01{(chr(92) + "x01") * 4000}", {arguments}]\n'

    _assert_refused(content.encode(), 3, "payload: ")


def test_a_message_is_short_and_prints_whatever_the_file_says() -> None:
    with pytest.raises(InvalidDefinition) as caught:
        parse_definition("a.yaml", b'name: a\nsteps: [{command: a, env: {"\\e[31m\\n' + b"x" * 9000 + b'": b}}]')

    assert caught.value.problem.isprintable()
    assert len(caught.value.problem) <= 303


def test_a_byte_order_mark_and_windows_lines_are_fine() -> None:
    data = b"\xef\xbb\xbfname: a\r\nsteps:\r\n- command: b\r\n"

    assert parse_definition("a.yaml", data).steps[0].shell.command == "b"


def test_anchors_may_be_used() -> None:
    data = b"name: a\nsteps:\n- {command: one, env: &env {A: b}}\n- {command: two, env: *env}\n"

    assert parse_definition("a.yaml", data).steps[1].shell.env == {"A": "b"}


@pytest.mark.parametrize(
    ("data", "name_and_line"),
    [
        (b"name: a\nsteps: [", ("a", 1)),
        (b"# x\nname: 'a.b' # y\r\n\tbroken", ("a.b", 2)),
        (b"steps:\n- name: a\n", (None, 0)),
        (b"name: ../a\n", (None, 0)),
        (b"\xff\nname: a\n", ("a", 2)),
    ],
)
def test_a_broken_file_still_tells_its_name(data: bytes, name_and_line: tuple[str | None, int]) -> None:
    assert declared_name(data) == name_and_line


def _assert_refused(data: bytes, line: int, problem: str) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        parse_definition("bad.yaml", data)

    assert problem in caught.value.problem
    assert caught.value.line == line
    assert str(caught.value).startswith(f"bad.yaml:{line}: " if line else "bad.yaml: ")
    assert len(caught.value.problem) < 300
