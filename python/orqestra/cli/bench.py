"""`orqestra bench`: how fast the system is, beside what the machine can do at best.

A scenario is a command here and a module of `orqestra.bench`. Exit codes: 0 every job ran once and well;
1 one was lost, run twice or failed, so that the figures do not count; 130 Ctrl-C.
"""

import asyncio

import click

from orqestra.bench.report import Report
from orqestra.bench.shell import COMMAND, JOBS, Shell
from orqestra.bench.system import Scenario, System, run_on_our_own
from orqestra.cli.bench_view import print_report, progress_bar
from orqestra.cli.documents import print_document
from orqestra.cli.failure import ExitCode, warn
from orqestra.cli.options import client_options, wants_json
from orqestra.cli.session import talk
from orqestra.client import Client
from orqestra.model.limits import SLOTS_MAX

JOBS_MAX = 1_000_000


@click.group()
def bench() -> None:
    """Measure how fast the system is."""


@bench.command()
@click.option("--jobs", type=click.IntRange(1, JOBS_MAX), default=JOBS, show_default=True, help="How many.")
@click.option("--command", default=COMMAND, show_default=True, metavar="TEXT", help="What a shell runs as each job.")
@click.option(
    "--embedded",
    is_flag=True,
    help="On a Postgres, a Redis, a server and a worker of its own, which are gone afterwards.",
)
@click.option("--slots", type=click.IntRange(1, SLOTS_MAX), help="With --embedded: jobs that the worker runs at once.")
@client_options
@click.pass_context
def shell(context: click.Context, *, jobs: int, command: str, embedded: bool, slots: int | None) -> None:
    """Run many short commands, beside what two bare threads start.

    Submits the jobs to the server, or with --embedded to one of its own, waits for the last committed end
    and checks every job. The limit is measured right before and right after, on this machine.
    """
    if slots is not None and not embedded:
        raise click.UsageError("--slots goes with --embedded: workers that run already have theirs")
    with progress_bar(jobs) as progress:
        report = _run(Shell(progress=progress, jobs=jobs, command=command), embedded=embedded, slots=slots)
    if report is None:
        context.exit(ExitCode.INTERRUPTED)
    if wants_json():
        print_document(report.document())
    else:
        print_report(report)
    if not report.is_steady:
        before, after = report.limits_per_s
        warn(
            f"The limit was {before:,.0f}/s before and {after:,.0f}/s after: the machine has other work, measure again"
        )
    if not report.is_good:
        warn(f"Error: {report.lost} jobs lost, {report.duplicated} run more than once, {report.failed} failed")
        context.exit(ExitCode.FAILED)


def _run(scenario: Scenario, *, embedded: bool, slots: int | None) -> Report | None:
    """Run a scenario on a system of its own or on the one that runs; None if a signal ended it."""
    from orqestra import log

    if embedded:
        log.configure("warning", "text")
        return asyncio.run(run_on_our_own(scenario, slots=slots))

    async def operation(client: Client) -> Report:
        return await scenario(System(client=client))

    return talk(operation)
