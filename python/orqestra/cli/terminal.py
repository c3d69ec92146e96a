"""What people read: tables that fit the terminal, colours where they are wanted, nothing that steers it.

Names, tags, messages and output come from others. A control character among them could move the cursor,
rewrite a line or worse, so all that is not printable is shown as an escape (`\\x1b`).
"""

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import click
from rich.cells import cell_len, set_cell_size

from orqestra.model.lifecycle import State

GAP: Final = "  "
NOTHING: Final = "-"
# Narrower than this a column says nothing; then the lines rather wrap.
NARROWEST: Final = 6
ELLIPSIS: Final = "…"
# Of jobs and of runs: the words are the same.
COLOURS: Final[dict[str, str]] = {
    State.PENDING: "blue",
    State.RUNNING: "cyan",
    State.RETRYING: "yellow",
    State.COMPLETED: "green",
    State.FAILED: "red",
    State.CANCELLED: "magenta",
}


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table. One that `shrinks` gives up width when the terminal is too narrow."""

    title: str
    shrinks: bool = False
    to_right: bool = False


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: cut to the width of the terminal, whole when the output goes elsewhere."""
    cells = [[plain(cell) for cell in row] for row in rows]
    widths = [
        max(cell_len(column.title), *(cell_len(row[index]) for row in cells), 0) for index, column in enumerate(columns)
    ]
    if sys.stdout.isatty():
        widths = fit(columns, widths, shutil.get_terminal_size().columns)
    click.echo(style(_line(columns, widths, [column.title for column in columns]), bold=True))
    for row in cells:
        click.echo(_paint(_line(columns, widths, row), row))


def print_fields(fields: Sequence[tuple[str, str]]) -> None:
    """Print names and values, one pair a line."""
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        shown = plain(value)
        click.echo(f"{style(name.ljust(width), bold=True)}{GAP}{_paint(shown, (shown,))}")


def print_block(title: str, text: str) -> None:
    """Print lines of others under a title; only line ends and tabs keep their meaning."""
    click.echo(f"\n{style(title, bold=True)}")
    for line in text.removesuffix("\n").split("\n"):
        click.echo("\t".join(plain(part) for part in line.split("\t")))


def plain(text: str) -> str:
    """Return `text` with everything that is not printable as an escape."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escape(each) for each in text)


def style(text: str, *, colour: str | None = None, bold: bool | None = None) -> str:
    """Return `text` with colours if stdout is a terminal and NO_COLOR is not set."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return click.style(text, fg=colour, bold=bold)


def fit(columns: Sequence[Column], widths: Sequence[int], available: int) -> list[int]:
    """Return widths that fill at most `available` cells, taken from the widest columns that may shrink."""
    fitted = list(widths)
    excess = sum(fitted) + len(GAP) * (len(fitted) - 1) - available
    while excess > 0:
        shrinking = [i for i, column in enumerate(columns) if column.shrinks and fitted[i] > NARROWEST]
        if not shrinking:
            break
        widest = max(shrinking, key=lambda i: fitted[i])
        fitted[widest] -= 1
        excess -= 1
    return fitted


def show_time(time: datetime | None) -> str:
    """Return a time in the zone of whoever reads it."""
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S") if time else NOTHING


def show(value: object) -> str:
    """Return what stands for a value, also for one that is absent."""
    return NOTHING if value is None or value == "" else str(value)


def _line(columns: Sequence[Column], widths: Sequence[int], cells: Sequence[str]) -> str:
    parts = (
        _pad(_cut(cell, width), width, to_right=column.to_right)
        for column, width, cell in zip(columns, widths, cells, strict=True)
    )
    return GAP.join(parts).rstrip()


def _cut(cell: str, width: int) -> str:
    """Return the beginning of a cell, with an ellipsis if that is not all; a wide character takes two."""
    return cell if cell_len(cell) <= width else set_cell_size(cell, width - 1) + ELLIPSIS


def _pad(cell: str, width: int, *, to_right: bool) -> str:
    space = " " * (width - cell_len(cell))
    return space + cell if to_right else cell + space


def _paint(line: str, cells: Sequence[str]) -> str:
    """Colour the first state that is among the cells."""
    for cell in cells:
        if cell in COLOURS:
            return line.replace(cell, style(cell, colour=COLOURS[cell]), 1)
    return line


def _escape(character: str) -> str:
    """Return the escape of one character: \\n, \\x1b, \\u202e."""
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
