"""Small is a budget, states are written once, and whoever silences a tool says why."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from orqestra.model.lifecycle import RunState, State

ROOT = Path(__file__).resolve().parents[2]
FILE_LINES = 350
FUNCTION_LINES = 50

# Path -> why this one may be longer.
LONG_FILES: dict[str, str] = {}
# "path::function" -> why this one may be longer.
LONG_FUNCTIONS: dict[str, str] = {}
# "path::word" -> what the word means there, since it is not the state.
OTHER_MEANINGS: dict[str, str] = {}

GENERATED = ROOT / "python" / "orqestra" / "v1"
PYTHON = sorted(
    path
    for folder in ("python", "tests", "benchmarks", "tools")
    for path in (ROOT / folder).rglob("*.py")
    if GENERATED not in path.parents
)
RUST = sorted((ROOT / "crates").rglob("*.rs"))
SQL_AND_LUA = sorted(path for pattern in ("*.sql", "*.lua") for path in (ROOT / "python" / "orqestra").rglob(pattern))
LIFECYCLE = ROOT / "python" / "orqestra" / "model" / "lifecycle.py"
STATES = {str(state) for states in (State, RunState) for state in states}

NOQA = re.compile(r"#\s*noqa(?::\s*[A-Z]+[0-9]+(?:,\s*[A-Z]+[0-9]+)*)?(?P<reason>.*)")
TYPE_IGNORE = re.compile(r"#\s*type:\s*ignore(?:\[[\w, -]+\])?(?P<reason>.*)")
RUST_LEAVE = re.compile(r"#!?\[(?:allow|expect)\((?P<body>[^]]*)\)\]")
SKIPS = re.compile(r"pytest\.skip|importorskip|mark\.skip|mark\.xfail")
REASON_CHARS = 8


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the name and the length of every function, nested ones too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield f"{name_of(path)}::{node.name}", node.end_lineno - node.lineno + 1


def loose_texts(path: Path) -> Iterator[str]:
    """Yield every text of the module that is neither a docstring nor the value of an enum's member."""
    tree = ast.parse(path.read_text())
    bound = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and "StrEnum" in [ast.unparse(base) for base in node.bases]:
            bound |= {member.value for member in node.body if isinstance(member, ast.Assign)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in bound:
            yield node.value


def comments(path: Path) -> Iterator[str]:
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


def test_no_file_is_longer_than_its_budget() -> None:
    lengths = {name_of(path): path.read_text().count("\n") for path in [*PYTHON, *RUST, *SQL_AND_LUA]}

    assert {name for name, lines in lengths.items() if lines > FILE_LINES} == set(LONG_FILES)


def test_no_function_is_longer_than_the_wall() -> None:
    lengths = dict(pair for path in PYTHON for pair in functions(path))

    assert {name for name, lines in lengths.items() if lines > FUNCTION_LINES} == set(LONG_FUNCTIONS)


def test_states_are_written_in_the_lifecycle_only() -> None:
    package = ROOT / "python" / "orqestra"
    found = {
        f"{name_of(path)}::{text}"
        for path in PYTHON
        if package in path.parents and path != LIFECYCLE
        for text in loose_texts(path)
        if text in STATES
    }

    assert found == set(OTHER_MEANINGS)


def test_every_exception_has_its_reason() -> None:
    for exceptions in (LONG_FILES, LONG_FUNCTIONS, OTHER_MEANINGS):
        assert all(len(reason) >= REASON_CHARS for reason in exceptions.values())


def test_who_silences_a_python_tool_says_why() -> None:
    silent = [
        f"{name_of(path)}: {comment}"
        for path in PYTHON
        for comment in comments(path)
        for found in (NOQA.search(comment), TYPE_IGNORE.search(comment))
        if found and len(found["reason"].strip("# ")) < REASON_CHARS
    ]

    assert silent == []


def test_who_silences_the_rust_compiler_says_why() -> None:
    silent = [
        f"{name_of(path)}: {found[0]}"
        for path in RUST
        for found in RUST_LEAVE.finditer(path.read_text())
        if not re.search(r'reason\s*=\s*"[^"]{8,}"', found["body"])
    ]

    assert silent == []


def test_no_test_is_skipped() -> None:
    here = Path(__file__)
    skipping = [name_of(path) for path in PYTHON if path != here and SKIPS.search(path.read_text())]
    skipping += [name_of(path) for path in RUST if "#[ignore" in path.read_text()]

    assert skipping == []


@pytest.mark.parametrize(
    ("comment", "is_reasoned"),
    [
        ("# noqa: S104", False),
        ("# noqa: S104, S603", False),
        ("# noqa: S104  what check_listen refuses", True),
        ("# type: ignore[misc]", False),
        ("# type: ignore[misc]  # what the test is about", True),
    ],
)
def test_a_reason_is_recognised(comment: str, is_reasoned: bool) -> None:
    found = NOQA.search(comment) or TYPE_IGNORE.search(comment)

    assert found is not None
    assert (len(found["reason"].strip("# ")) >= REASON_CHARS) == is_reasoned
