"""Tables that fit, and names that can't steer the terminal."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from orqestra.cli import terminal
from orqestra.cli.output import OutputCopy
from orqestra.cli.terminal import Column, fit, plain, print_block, print_table, style
from orqestra.client import Chunk, OutputStream
from orqestra.model.lifecycle import State

COLUMNS = (Column(title="ID", to_right=True), Column(title="STATUS"), Column(title="NAME", shrinks=True))


def on_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)


def test_a_pipe_gets_everything_and_no_colours(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(COLUMNS, [["1", "completed", "x" * 500], ["12", "failed", ""]])
    assert capsys.readouterr().out == (f"ID  STATUS     NAME\n 1  completed  {'x' * 500}\n12  failed\n")


def test_a_terminal_gets_what_fits(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    on_terminal(monkeypatch, 40)
    monkeypatch.setenv("NO_COLOR", "1")
    print_table(COLUMNS, [["1", "completed", "x" * 500], ["2", "failed", "日本語" * 20]])
    lines = capsys.readouterr().out.splitlines()
    assert all(cell_len(line) <= 40 for line in lines)
    assert lines[1].endswith("x…")
    assert lines[2].endswith("…")


def test_colours_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    on_terminal(monkeypatch, 40)
    assert style("failed", colour="red") == "\x1b[31mfailed\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert style("failed", colour="red") == "failed"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert style("failed", colour="red") == "failed"


def test_every_state_has_a_colour() -> None:
    assert set(terminal.COLOURS) == set(State)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ünïcode 日本", "plain ünïcode 日本"),
        ("\x1b[2J\x07", "\\x1b[2J\\x07"),
        ("a\nb\r", "a\\nb\\r"),
        ("\x9b31m", "\\x9b31m"),
        ("right\u202eleft", "right\\u202eleft"),
        ("\udcff", "\\udcff"),
    ],
)
def test_what_could_steer_a_terminal_is_escaped(text: str, shown: str) -> None:
    assert plain(text) == shown


@given(st.text(st.characters(codec=None)))
def test_nothing_unprintable_gets_through(text: str) -> None:
    assert plain(text).isprintable()


@given(st.lists(st.integers(1, 200), min_size=3, max_size=3), st.integers(20, 300))
def test_widths_fit_or_can_shrink_no_further(widths: list[int], available: int) -> None:
    fitted = fit(COLUMNS, widths, available)
    assert fitted[:2] == widths[:2]
    assert sum(fitted) + 4 <= available or fitted[2] <= terminal.NARROWEST
    assert fitted[2] <= widths[2]


def test_what_was_not_kept_is_told(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    copy = OutputCopy()
    for fence, offset, data in ((1, 0, b"ab"), (1, 2, b"c\xff"), (2, 0, b"d"), (2, 11, b"e")):
        copy.write(Chunk(fence=fence, stream=OutputStream.STDOUT, offset=offset, data=data))
    copy.write(Chunk(fence=2, stream=OutputStream.STDERR, offset=0, data=b"error\n"))
    copy.close()
    output = capfdbinary.readouterr()
    assert output.out == b"abc\xffde"
    assert output.err == b"error\n10 bytes in the middle of the output were not kept.\n"


def test_blocks_keep_lines_and_tabs_only(capsys: pytest.CaptureFixture[str]) -> None:
    print_block("stdout", "one\ttwo\n\x1b[31mthree\n")
    assert capsys.readouterr().out == "\nstdout\none\ttwo\n\\x1b[31mthree\n"
