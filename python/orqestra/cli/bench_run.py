"""What all scenarios of `orqestra bench` share: their options, where they run, and how the command ends."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import wraps
from typing import Any, Final, TypeVar

import click

from orqestra.bench.limit import LIMIT_SECONDS, Limits
from orqestra.bench.report import Report
from orqestra.bench.system import Running, Scenario, run_on_our_own, run_on_running
from orqestra.bench.workers import WORKERS, Crew
from orqestra.cli.bench_view import print_report
from orqestra.cli.documents import print_document
from orqestra.cli.failure import ExitCode, warn
from orqestra.cli.options import PATIENCE, PATIENCE_SECONDS, SERVER, wants_json
from orqestra.client import Patience
from orqestra.model.limits import SLOTS_MAX

JOBS_MAX: Final = 10_000_000
WORKERS_MAX: Final = 64

Command = TypeVar("Command", bound=Callable[..., Any])

EMBEDDED: Final = click.option(
    "--embedded",
    is_flag=True,
    help="On a Postgres, a Redis, a server and workers of its own, which are gone afterwards.",
)
POSTGRES_URL: Final = click.option(
    "--postgres-url",
    metavar="URL",
    help="Measure the limit here, in a schema that is gone afterwards.  [default: one of its own, if it has one]",
)
LIMIT_SECONDS_OPTION: Final = click.option(
    "--limit-seconds",
    type=click.FloatRange(0.1, 600),
    default=LIMIT_SECONDS,
    show_default=True,
    help="How long a limit is measured, each time.",
)


@dataclass(frozen=True, kw_only=True)
class Choices:
    """Where a scenario runs: on a system of its own, or on the one that runs; and how its limits are measured."""

    embedded: bool
    limits: Limits


def place_options(*, embedded: bool = True, postgres_url: bool = True) -> Callable[[Command], Callable[..., Any]]:
    """Add those of the options that say where which mean something to the command; it gets them as `choices`."""
    options = [LIMIT_SECONDS_OPTION, *([POSTGRES_URL] if postgres_url else ()), *([EMBEDDED] if embedded else ())]

    def add(command: Command) -> Callable[..., Any]:
        @wraps(command)
        def with_choices(
            *, limit_seconds: float, embedded: bool = False, postgres_url: str | None = None, **others: Any
        ) -> Any:
            limits = Limits(postgres_url=postgres_url, seconds=limit_seconds)
            return command(choices=Choices(embedded=embedded, limits=limits), **others)

        for option in options:
            with_choices = option(with_choices)
        return with_choices

    return add


def workers_option(command: Command) -> Command:
    """Add how many workers of our own there are."""
    return click.option(
        "--workers",
        type=click.IntRange(1, WORKERS_MAX),
        default=WORKERS,
        show_default=True,
        help="How many workers are started for it.",
    )(command)


def slots_option(command: Command) -> Command:
    """Add how many slots each of them has."""
    return click.option(
        "--slots",
        type=click.IntRange(1, SLOTS_MAX),
        help="How many jobs each of them runs at once.  [default: as any worker, WORKER_COUNT, else 4 x CPUs]",
    )(command)


def crew_of(slots: int | None, workers: int = WORKERS) -> Crew:
    """Return what the two options chose: workers as they come, unless told otherwise."""
    from orqestra.settings import Settings

    return Crew(slots=slots or Settings.load().worker_slots, workers=workers)


def run(scenario: Scenario, choices: Choices, *, workers: int = 0, slots: int | None = None) -> Report | None:
    """Run a scenario; None if a signal ended it. `workers` and `slots` are those of a system of its own."""
    options = click.get_current_context().meta
    if choices.embedded:
        if options.keys() & {SERVER, PATIENCE}:
            raise click.UsageError("--embedded has a server of its own: --server and --patience do not go with it")
        return run_to_end(run_on_our_own(scenario, choices.limits, workers=workers, slots=slots))
    from orqestra.settings import Settings

    running = Running(
        address=Settings.load(grpc_address=options.get(SERVER)).grpc_address.dial,
        patience=Patience(total_seconds=options.get(PATIENCE, PATIENCE_SECONDS)),
        limits=choices.limits,
    )
    return run_to_end(run_on_running(scenario, running))


def run_to_end(work: Coroutine[None, None, Report | None]) -> Report | None:
    """Run something that measures, in a loop that costs little."""
    import asyncio

    import uvloop

    from orqestra import log

    log.configure("warning", "text")
    failed: BaseException
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(work)
    except BaseExceptionGroup as failures:
        # Callers that submit at once fail at once, of the same.
        failed = failures
    while isinstance(failed, BaseExceptionGroup):
        failed = failed.exceptions[0]
    # Not from within: Python 3.11.2, which Debian has, would wrap it in a group again.
    raise failed


def end(report: Report | None) -> None:
    """Print what came out, warn of what is wrong with it, and exit accordingly."""
    context = click.get_current_context()
    if report is None:
        context.exit(ExitCode.INTERRUPTED)
    if wants_json():
        print_document(report.document())
    else:
        print_report(report)
    if report.limits_per_s is None:
        warn("No limit was measured, so there is no ratio: name a Postgres with --postgres-url, or use --embedded")
    elif not report.is_steady:
        before, after = report.limits_per_s
        warn(
            f"The limit was {before:,.0f}/s before and {after:,.0f}/s after: the machine has other work, measure again"
        )
    if not report.is_good:
        verdict = report.verdict
        warn(f"Error: {verdict.lost} jobs lost, {verdict.duplicated} run more than once, {verdict.failed} failed")
        context.exit(ExitCode.FAILED)
