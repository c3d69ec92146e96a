"""The payload of a shell job: what is run, and what gets which words."""

import json
from typing import Any

import pytest

from orqestra.model import limits
from orqestra.model.errors import InvalidInput
from orqestra.model.payload import LIMITS_MAX, ResourceLimits, parse_limit, parse_shell

LONGEST = limits.ARGUMENT_BYTES
BAD: list[tuple[Any, str]] = [
    ({}, "has neither"),
    ({"command": "a", "argv": ["a"]}, "not both"),
    ({"command": ""}, "payload.command: is empty"),
    ({"command": " \n"}, "payload.command: is empty"),
    ({"command": "a\0b"}, "payload.command: holds a NUL"),
    ({"command": 7}, "command"),
    ({"command": None}, "has neither"),
    ({"argv": []}, "payload.argv: is empty"),
    ({"argv": [""]}, "payload.argv: is empty"),
    ({"argv": ["a", "b\0"]}, "payload.argv: holds a NUL"),
    ({"argv": "ls"}, "argv"),
    ({"argv": [1]}, "argv"),
    ({"command": "a", "cwd": "/a\0"}, "payload.cwd: holds a NUL"),
    ({"command": "a", "env": {"A=B": "c"}}, "'A=B' is not a name"),
    ({"command": "a", "env": {"": "c"}}, "'' is not a name"),
    ({"command": "a", "env": {"1A": "c"}}, "'1A' is not a name"),
    ({"command": "a", "env": {"A": "b\0"}}, "A holds a NUL"),
    ({"command": "a", "env": {"A": 1}}, "env"),
    ({"command": "a", "env": {"A": "x" * limits.ENV_BYTES}}, f"at most {limits.ENV_BYTES}"),
    ({"command": "é" * LONGEST}, f"payload.command: {2 * LONGEST} bytes in one argument; at most {LONGEST} are"),
    ({"argv": ["a", "x" * (LONGEST + 1)]}, f"payload.argv: {LONGEST + 1} bytes in one argument"),
    ({"command": "a", "unknown": 1}, "unknown"),
    ({"command": "a", "nice": 20}, "payload.nice: 20 is not allowed; it must be from 0 to 19"),
    ({"command": "a", "nice": -1}, "payload.nice: -1 is not allowed"),
    ({"command": "a", "nice": "5"}, "payload.nice: Expected `int | null`, got `str`"),
    ({"command": "a", "nice": True}, "payload.nice: Expected `int | null`, got `bool`"),
    ({"command": "a", "run_as": ""}, "payload.run_as: '' is not allowed; write user or user:group"),
    ({"command": "a", "run_as": "Root"}, "payload.run_as: 'Root' is not allowed"),
    ({"command": "a", "run_as": "a:"}, "payload.run_as: 'a:' is not allowed"),
    ({"command": "a", "run_as": ":a"}, "payload.run_as: ':a' is not allowed"),
    ({"command": "a", "run_as": "a:b:c"}, "payload.run_as: 'a:b:c' is not allowed"),
    ({"command": "a", "run_as": "a\n"}, "payload.run_as: 'a\\n' is not allowed"),
    ({"command": "a", "run_as": "a" * 33}, "is not allowed; write user or user:group"),
    ({"command": "a", "run_as": "010"}, "payload.run_as: '010' is not allowed"),
    ({"command": "a", "run_as": "0:4294967295"}, "payload.run_as: 4294967295 is no id"),
    ({"command": "a", "run_as": 0}, "payload.run_as: Expected `str | null`, got `int`"),
    ({"command": "a", "allow_background": 1}, "payload.allow_background: Expected `bool`, got `int`"),
    ({"command": "a", "limits": []}, "payload.limits: Expected `object | null`, got `array`"),
    (
        {"command": "a", "limits": {"files": 1}},
        "unknown field `files`; allowed are open_files, file_bytes",
    ),
    (
        {"command": "a", "limits": {"open_files": 0}},
        "payload.limits.open_files: 0 is not allowed; it must be",
    ),
    ({"command": "a", "limits": {"open_files": 2**20 + 1}}, "payload.limits.open_files: 1048577 is not allowed"),
    ({"command": "a", "limits": {"file_bytes": 2**50 + 1}}, "payload.limits.file_bytes: 1125899906842625 is not"),
    ({"command": "a", "limits": {"cpu_seconds": 2592001}}, "payload.limits.cpu_seconds: 2592001 is not allowed"),
    ({"command": "a", "limits": {"address_space_bytes": -1}}, "payload.limits.address_space_bytes: -1 is not"),
    ({"command": "a", "limits": {"memory_bytes": 10**30}}, "payload.limits.memory_bytes"),
    ({"command": "a", "limits": {"memory_bytes": "1GiB"}}, "payload.limits.memory_bytes: Expected `int | null`"),
    ({"command": "a", "limits": {"processes": 0}}, "payload.limits.processes: 0 is not allowed"),
    ([], "payload"),
    (None, "payload"),
]


def test_a_command_is_run_by_the_shell_and_an_argv_as_it_is() -> None:
    assert parse_shell(b'{"command": "echo $A"}').arguments() == ["/bin/sh", "-c", "echo $A"]
    assert parse_shell(b'{"argv": ["/bin/echo", "", "$A"]}').arguments() == ["/bin/echo", "", "$A"]


def test_everything_that_may_be_said_is_read() -> None:
    shell = parse_shell(json.dumps({"command": "a", "env": {"_A1": "ü"}, "cwd": "/", "stdin": "in\0put"}).encode())

    assert (shell.env, shell.cwd, shell.stdin) == ({"_A1": "ü"}, "/", "in\0put")


def test_how_it_is_run_is_read_and_nothing_of_it_has_to_be_said() -> None:
    limits_given = {name: 1 for name in LIMITS_MAX}
    how = {"nice": 0, "run_as": "www-data:33", "allow_background": True, "limits": limits_given}

    shell = parse_shell(json.dumps({"command": "a", **how}).encode())
    silent = parse_shell(b'{"command": "a"}')

    assert (shell.nice, shell.run_as, shell.allow_background) == (0, "www-data:33", True)
    assert shell.limits == ResourceLimits(**limits_given)
    assert (silent.nice, silent.run_as, silent.allow_background, silent.limits) == (None, None, False, None)


@pytest.mark.parametrize("run_as", ["a", "_x-1", "a" * 32, "nobody:nogroup", "0", "1000:1000", "app:4294967294"])
def test_an_account_is_a_name_or_a_number(run_as: str) -> None:
    assert parse_shell(json.dumps({"command": "a", "run_as": run_as}).encode()).run_as == run_as


def test_every_limit_may_be_as_large_as_its_maximum() -> None:
    shell = parse_shell(json.dumps({"command": "a", "limits": LIMITS_MAX}).encode())

    assert shell.limits == ResourceLimits(**LIMITS_MAX)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [("open_files", "256", 256), ("memory_bytes", "512MiB", 512 * 1024**2), ("file_bytes", "7", 7)],
)
def test_a_limit_of_bytes_may_be_written_as_a_size(name: str, text: str, value: int) -> None:
    assert parse_limit(name, text, field="limit") == value


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("files", "1", "limit: 'files' is not known; allowed are open_files,"),
        ("open_files", "1KiB", "limit: '1KiB' is not a whole number"),
        ("open_files", "-1", "limit: '-1' is not a whole number"),
        ("memory_bytes", "much", "limit: 'much' is not a size"),
    ],
)
def test_a_limit_that_cannot_be_read_is_refused(name: str, text: str, problem: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_limit(name, text, field="limit")

    assert problem in str(refused.value)


@pytest.mark.parametrize(("content", "problem"), BAD)
def test_what_cannot_be_run_is_refused_with_its_field(content: Any, problem: str) -> None:
    with pytest.raises(InvalidInput, match="payload") as refused:
        parse_shell(json.dumps(content).encode())

    assert problem in str(refused.value)


@pytest.mark.parametrize("payload", [b"", b"{", b"\xff", b'{"command": "\xff"}', b"[" * 100_000, b"{} {}"])
def test_what_is_no_json_is_refused(payload: bytes) -> None:
    with pytest.raises(InvalidInput, match="payload"):
        parse_shell(payload)


def test_arguments_as_long_as_one_may_be_are_let_in() -> None:
    argv = ["a", "x" * LONGEST, "x" * LONGEST]

    assert parse_shell(json.dumps({"argv": argv}).encode()).arguments() == argv


def test_an_environment_as_large_as_its_limit_is_let_in() -> None:
    value = "x" * (limits.ENV_BYTES - len("A") - 2)

    assert parse_shell(json.dumps({"command": "a", "env": {"A": value}}).encode()).env == {"A": value}
