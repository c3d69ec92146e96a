"""The payload of a shell job: what is run, and what gets which words."""

import json
from typing import Any

import pytest

from orqestra.model import limits
from orqestra.model.errors import InvalidInput
from orqestra.model.payload import parse_shell

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
    ({"command": "a", "unknown": 1}, "unknown"),
    ([], "payload"),
    (None, "payload"),
]


def test_a_command_is_run_by_the_shell_and_an_argv_as_it_is() -> None:
    assert parse_shell(b'{"command": "echo $A"}').arguments() == ["/bin/sh", "-c", "echo $A"]
    assert parse_shell(b'{"argv": ["/bin/echo", "", "$A"]}').arguments() == ["/bin/echo", "", "$A"]


def test_everything_that_may_be_said_is_read() -> None:
    shell = parse_shell(json.dumps({"command": "a", "env": {"_A1": "ü"}, "cwd": "/", "stdin": "in\0put"}).encode())

    assert (shell.env, shell.cwd, shell.stdin) == ({"_A1": "ü"}, "/", "in\0put")


@pytest.mark.parametrize(("content", "problem"), BAD)
def test_what_cannot_be_run_is_refused_with_its_field(content: Any, problem: str) -> None:
    with pytest.raises(InvalidInput, match="payload") as refused:
        parse_shell(json.dumps(content).encode())

    assert problem in str(refused.value)


@pytest.mark.parametrize("payload", [b"", b"{", b"\xff", b'{"command": "\xff"}', b"[" * 100_000, b"{} {}"])
def test_what_is_no_json_is_refused(payload: bytes) -> None:
    with pytest.raises(InvalidInput, match="payload"):
        parse_shell(payload)


def test_an_environment_as_large_as_its_limit_is_let_in() -> None:
    value = "x" * (limits.ENV_BYTES - len("A") - 2)

    assert parse_shell(json.dumps({"command": "a", "env": {"A": value}}).encode()).env == {"A": value}
