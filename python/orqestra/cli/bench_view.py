"""What people see of a benchmark: a bar while it runs, then its figures."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

from orqestra.bench.progress import Progress, Unseen
from orqestra.bench.report import Figure, Latencies, Report, Usage
from orqestra.cli.terminal import NOTHING, Column, print_fields, print_table
from orqestra.model.lifecycle import State

COLUMNS = (
    Column(title="PROCESS", shrinks=True),
    Column(title="CPU s", to_right=True),
    Column(title="CPU µs/JOB", to_right=True),
    Column(title="RSS MB", to_right=True),
)
MICROSECONDS = 1_000_000
# Below it a figure is a ratio or the like, and its digits say something.
SMALL: Final = 100

if TYPE_CHECKING:  # slow to import
    from rich.progress import Progress as Bars


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Lend a bar that is drawn if stderr is a terminal."""
    if not sys.stderr.isatty():
        yield Unseen()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # Drawn when told to and not by the clock: what is measured shares the CPUs with us.
    with Bars(*columns, console=Console(stderr=True), transient=True, auto_refresh=False) as bars:
        yield Bar(bars)


class Bar:
    """A bar on a terminal."""

    def __init__(self, bars: "Bars") -> None:
        self._bars = bars
        self._task = bars.add_task("")

    def begin(self, what: str, total: int) -> None:
        """Show a new bar."""
        self._bars.reset(self._task, total=total, description=what)
        self._bars.refresh()

    def reached(self, done: int) -> None:
        """Show how far it is."""
        self._bars.update(self._task, completed=done, refresh=True)


def print_report(report: Report) -> None:
    """Print the figures of a scenario."""
    settings = ", ".join(f"{name} {value}" for name, value in report.settings.items())
    versions = ", ".join(f"{name} {value}" for name, value in report.versions.items())
    print_fields(
        [
            ("scenario", report.scenario),
            ("jobs", f"{report.jobs:,} in {report.seconds:.2f} s"),
            ("speed", f"{report.jobs_per_s:,.0f} jobs/s"),
            *_limit(report),
            ("latency", _latency(report.latencies)),
            *(field for name, figure in report.more.items() for field in _more(name, figure)),
            ("lost", str(report.verdict.lost)),
            ("duplicated", str(report.verdict.duplicated)),
            (State.FAILED.value, str(report.verdict.failed)),
            ("settings", settings),
            ("machine", f"{report.machine['cpus']} CPUs, {report.machine['cpu'] or report.machine['machine']}"),
            ("versions", versions),
        ]
    )
    if report.processes:
        click.echo()
        print_table(COLUMNS, [_row(usage, report.jobs) for usage in report.processes])


def _limit(report: Report) -> list[tuple[str, str]]:
    if report.limit_per_s is None or report.ratio is None:
        return [("limit", NOTHING)]
    return [
        ("limit", f"{report.limit_per_s:,.0f} {report.limit_of}"),
        ("ratio", f"{report.ratio:.3f} of the limit"),
    ]


def _more(name: str, figure: Figure) -> Iterator[tuple[str, str]]:
    """Yield a figure that only this scenario has, as many lines as it has parts."""
    title = name.replace("_", " ")
    match figure:
        case Latencies():
            yield title, _latency(figure)
        case Mapping():
            for part, each in figure.items():
                yield from _more(f"{title} {part}", each)
        case None:
            yield title, NOTHING
        case _:
            yield title, f"{figure:,.3f}" if figure < SMALL else f"{figure:,.0f}"


def _latency(latencies: Latencies | None) -> str:
    if latencies is None:
        return NOTHING
    figures = {
        "p50": latencies.p50,
        "p95": latencies.p95,
        "p99": latencies.p99,
        "p99.9": latencies.p999,
        "max": latencies.max,
    }
    return ", ".join(f"{name} {figure:,.1f} ms" for name, figure in figures.items())


def _row(usage: Usage, jobs: int) -> list[str]:
    return [
        usage.name,
        f"{usage.cpu_s:.2f}",
        f"{usage.cpu_s * MICROSECONDS / jobs:,.0f}",
        NOTHING if usage.rss_mb is None else f"{usage.rss_mb:,.0f}",
    ]
