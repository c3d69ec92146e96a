"""What is written about the settings is what the settings are."""

from io import StringIO
from pathlib import Path

import pytest
from dotenv import dotenv_values

from orqestra.settings import Settings, variables
from tools.settings_docs import DOCUMENTS

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / ".env.example"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_document_is_current(name: str) -> None:
    text = (ROOT / name).read_text()

    assert text == DOCUMENTS[name](text), f"{name} is not what the settings say: run `make docs`"


def test_the_table_has_every_setting_once() -> None:
    lines = (ROOT / "docs/configuration.md").read_text().splitlines()

    for _, variable in variables():
        assert sum(line.startswith(f"| `{variable.name}` |") for line in lines) == 1


def test_the_example_uncommented_is_the_defaults() -> None:
    lines = [
        line[1:] if line.startswith("#") and not line.startswith("# ") else line
        for line in EXAMPLE.read_text().splitlines()
    ]
    example = dotenv_values(stream=StringIO("\n".join(lines)), interpolate=False)
    given = {name: text for name, text in example.items() if text}

    assert set(example) == {variable.name for _, variable in variables()}
    assert Settings.load(environ=given, dotenv=None) == Settings.load(environ={}, dotenv=None)


def test_the_example_as_it_is_sets_nothing() -> None:
    assert dotenv_values(EXAMPLE) == {}


def test_every_setting_says_why() -> None:
    for _, variable in variables():
        assert variable.why.endswith("."), variable.name
        assert variable.kind.allowed, variable.name


def test_every_span_and_count_has_a_unit() -> None:
    for _, variable in variables():
        if variable.kind.allowed.startswith("seconds"):
            assert variable.unit == "seconds", variable.name
