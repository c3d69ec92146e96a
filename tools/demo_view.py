"""What the demonstration shows: a live table on a terminal, a line for each change elsewhere."""

from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orqestra.cli.terminal import COLOURS, plain

DETAIL_CHARS: Final = 40


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    name: str
    job: str
    status: str
    attempt: int = 0
    detail: str = ""


class View:
    """Shows rows, in the order in which their names came first. A context manager while the table lives."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._rows: dict[str, Row] = {}
        self._live = Live(console=self._console, auto_refresh=False)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, row: Row) -> None:
        """Show a row, in the place of the one with its name."""
        if self._rows.get(row.name) == row:
            return
        self._rows[row.name] = row
        if self._live.is_started:
            self._live.update(self._table(), refresh=True)
        else:
            self.say(f"{row.name:<14}{row.status:<11}{_attempt(row):<11}{_detail(row)}".rstrip())

    def say(self, line: str) -> None:
        """Print a line."""
        self._console.print(Text(line))

    def check(self, claim: str, *, holds: bool) -> None:
        """Print a promise and whether it was kept."""
        mark = Text("  ok  " if holds else "  NO  ", style="green" if holds else "bold red")
        self._console.print(mark + Text(claim))

    def _table(self) -> Table:
        table = Table("job", "id", "status", "attempt", "output", box=None, padding=(0, 2, 0, 0))
        for row in self._rows.values():
            status = Text(row.status, style=COLOURS[row.status])
            table.add_row(row.name, row.job, status, str(row.attempt or ""), Text(_detail(row)))
        return table


def _attempt(row: Row) -> str:
    return f"attempt {row.attempt}" if row.attempt else ""


def _detail(row: Row) -> str:
    text = plain(row.detail)
    return text if len(text) <= DETAIL_CHARS else text[: DETAIL_CHARS - 1] + "…"
