"""The tables of docs/reliability.md are rendered from the kept run, and every cell of it holds."""

import json
from typing import Any

import pytest

from tests.chaos import report
from tests.chaos.bars import bars
from tests.chaos.cells import all_cells


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(report.RESULTS.read_text())
    return document


def test_the_tables_are_those_of_the_kept_run(kept: dict[str, Any]) -> None:
    text = report.DOCUMENT.read_text()

    assert text.partition(report.BEGIN)[2].partition(report.END)[0].strip() == report.render(kept)


def test_the_kept_run_has_every_cell(kept: dict[str, Any]) -> None:
    names = {f"{cell['point']}/{cell['victim']}" for cell in kept["cells"]}

    assert names == {cell.name for cell in all_cells()} | {bar.name for bar in bars()}


def test_what_did_not_hold_says_why(kept: dict[str, Any]) -> None:
    for cell in kept["cells"]:
        assert cell["ok"] or cell["violations"] or not cell["hit"]
        assert cell["lost"] == cell["unexpected"] == 0
