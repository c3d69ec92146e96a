"""What people see of a benchmark: a bar while it runs, then its figures."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from orqestra.bench.report import Latencies, Report, Usage
from orqestra.cli.terminal import NOTHING, Column, print_fields, print_table
from orqestra.model.lifecycle import State

COLUMNS = (
    Column(title="PROCESS", shrinks=True),
    Column(title="CPU s", to_right=True),
    Column(title="CPU µs/JOB", to_right=True),
    Column(title="RSS MB", to_right=True),
)
MICROSECONDS = 1_000_000


@contextmanager
def progress_bar(jobs: int) -> Iterator[Callable[[int], None]]:
    """Lend a function that is told how many jobs have ended, and shows it if stderr is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    columns = ("jobs", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # Drawn when told to and not by the clock: what is measured shares the CPUs with us.
    with Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False) as progress:
        task = progress.add_task("jobs", total=jobs)
        yield lambda ended: progress.update(task, completed=ended, refresh=True)


def print_report(report: Report) -> None:
    """Print the figures of a scenario."""
    settings = ", ".join(f"{name} {value}" for name, value in report.settings.items())
    xargs = [] if report.xargs_per_s is None else [("xargs -P2", f"{report.xargs_per_s:,.0f} commands/s")]
    print_fields(
        [
            ("scenario", report.scenario),
            ("jobs", f"{report.jobs:,} in {report.seconds:.2f} s"),
            ("speed", f"{report.jobs_per_s:,.0f} jobs/s"),
            ("limit", f"{report.limit_per_s:,.0f} commands/s by bare threads"),
            *xargs,
            ("ratio", f"{report.ratio:.3f} of the limit"),
            ("latency", _latency(report.latencies)),
            ("lost", str(report.lost)),
            ("duplicated", str(report.duplicated)),
            (State.FAILED.value, str(report.failed)),
            ("settings", settings),
            ("machine", f"{report.machine['cpus']} CPUs, {report.machine['cpu'] or report.machine['machine']}"),
        ]
    )
    if report.processes:
        click.echo()
        print_table(COLUMNS, [_row(usage, report.jobs) for usage in report.processes])


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
