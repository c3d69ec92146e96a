"""No bytes, no YAML and no value make the loader do anything but read or refuse."""

import json
from typing import Any

import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orqestra.engine.definitions import STEP_KEYS, parse_definition
from orqestra.model.errors import InvalidDefinition
from orqestra.model.workflow import from_snapshot

_MARKS = [
    ": ",
    ":",
    "- ",
    "? ",
    "[",
    "]",
    "{",
    "}",
    ", ",
    '"',
    "'",
    "&a ",
    "*a",
    "<<",
    "!!str ",
    "> ",
    "# ",
    "%",
]
_SPACES = [
    "\n",
    "\n  ",
    "\n    ",
    "\t",
    "\r",
    "\x85",
    "\u2028",
    "\ufeff",
    "| ",
    "---",
    "...",
    "\\0",
    "\\ud800",
]
_WORDS = [*STEP_KEYS, "steps", "max", "on", "a", "5s", "-1", "~", "true", "1e400", ".inf", "0x10", "1:30", "="]
_YAML_PIECES = st.sampled_from([*_MARKS, *_SPACES, *_WORDS])


@settings(deadline=None)  # pytest's timeout bounds it
@given(st.binary(max_size=200))
@example(b"%YAML 9.9\n---\na")
@example(b"[" * 100_000)
@example(b"{a: " * 60_000)
@example(b"? " * 100_000)
@example(b"- " * 100_000)
@example(b"!<tag:yaml.org,2002:str> a")
@example(b'"\\ud800"')
def test_no_bytes_do_worse_than_being_refused(data: bytes) -> None:
    _parse_or_refuse(data)


@settings(deadline=None)  # pytest's timeout bounds it
@given(st.lists(_YAML_PIECES, max_size=40).map("".join))
def test_no_yaml_does_worse_than_being_refused(content: str) -> None:
    _parse_or_refuse(content.encode())
    _parse_or_refuse(f"name: a\nsteps:\n  - command: b\n    {content}".encode())


_VALUES = st.recursive(
    st.sampled_from(
        [None, True, 0, -1, 10**30, 1.5, float("nan"), float("inf"), "", "a", "5s", "a\0", "\x85", "=", "<<"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "max", "on", "backoff", "open_files", "A B", "<<"]), inner)
    ),
    max_leaves=5,
)


@settings(deadline=None)  # pytest's timeout bounds it
@given(st.dictionaries(st.sampled_from(STEP_KEYS), _VALUES, max_size=4))
def test_no_value_does_worse_than_being_refused(step: dict[str, Any]) -> None:
    content = yaml.safe_dump({"name": "a", "steps": [{"command": "b", **step}]}, allow_unicode=True)

    _parse_or_refuse(content.encode("utf-8", "replace"))


def _parse_or_refuse(data: bytes) -> None:
    try:
        definition = parse_definition("any.yaml", data)
    except InvalidDefinition as error:
        assert error.problem.isprintable()
        assert 0 <= error.line <= data.count(b"\n") + data.count(b"\r") + len(data) + 1
    else:
        assert from_snapshot(json.loads(json.dumps(definition.snapshot()))) == definition
