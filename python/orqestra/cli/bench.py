"""`orqestra bench`: how fast the system is, beside what the machine can do at best.

A scenario is a command here and a module of `orqestra.bench`. Exit codes: 0 every job ran once and well;
1 one was lost, run twice or failed, so that the figures do not count; 130 Ctrl-C.
"""

import click

from orqestra.bench import backlog as backlog_scenario
from orqestra.bench import delayed as delayed_scenario
from orqestra.bench import latency as latency_scenario
from orqestra.bench import mixed as mixed_scenario
from orqestra.bench import shell as shell_scenario
from orqestra.bench import single as single_scenario
from orqestra.bench import throughput as throughput_scenario
from orqestra.bench.backlog import Backlog
from orqestra.bench.delayed import Delayed
from orqestra.bench.latency import Latency
from orqestra.bench.limits import measure_limits, measure_limits_on_our_own
from orqestra.bench.mixed import Mixed
from orqestra.bench.shell import COMMAND, Shell
from orqestra.bench.single import Single
from orqestra.bench.throughput import Throughput
from orqestra.cli.bench_run import (
    JOBS_MAX,
    Choices,
    crew_of,
    end,
    place_options,
    run,
    run_to_end,
    slots_option,
    workers_option,
)
from orqestra.cli.bench_view import progress_bar
from orqestra.cli.options import client_options, json_option
from orqestra.model.limits import SLOTS_MAX

JOBS = click.IntRange(1, JOBS_MAX)
CALLERS_MAX = 10_000


@click.group()
def bench() -> None:
    """Measure how fast the system is.

    Each scenario puts a load on the server, or with --embedded on one of its own, waits for the last committed
    end and checks every job. What the machine can do at best is measured right before and right after.
    """


@bench.command()
@click.option("--jobs", type=JOBS, default=throughput_scenario.JOBS, show_default=True, help="How many.")
@workers_option
@slots_option
@place_options()
@client_options
def throughput(*, jobs: int, workers: int, slots: int | None, choices: Choices) -> None:
    """Run many jobs that do nothing.

    They are submitted in batches while workers of the run's own work, beside the raw cycle of Postgres: COPY
    in, claim, complete.
    """
    with progress_bar() as progress:
        report = run(Throughput(progress=progress, jobs=jobs, crew=crew_of(slots, workers)), choices)
    end(report)


@bench.command()
@click.option("--jobs", type=JOBS, default=single_scenario.JOBS, show_default=True, help="How many.")
@click.option(
    "--callers",
    type=click.IntRange(1, CALLERS_MAX),
    default=single_scenario.CALLERS,
    show_default=True,
    help="How many submit at once.",
)
@workers_option
@slots_option
@place_options()
@client_options
def single(*, jobs: int, callers: int, workers: int, slots: int | None, choices: Choices) -> None:
    """Submit one job per call, from many callers.

    They share one client. As many jobs are submitted in batches right before and right after.
    """
    with progress_bar() as progress:
        report = run(Single(progress=progress, jobs=jobs, callers=callers, crew=crew_of(slots, workers)), choices)
    end(report)


@bench.command()
@click.option(
    "--jobs", type=JOBS, default=latency_scenario.JOBS, show_default=True, help="How many on the idle system."
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 3600),
    default=latency_scenario.LOAD_SECONDS,
    show_default=True,
    help="How long each load lasts.",
)
@click.option(
    "--capacity-jobs",
    type=JOBS,
    default=latency_scenario.CAPACITY_JOBS,
    show_default=True,
    help="How many to measure the throughput with of which the loads are parts.",
)
@workers_option
@slots_option
@place_options()
@client_options
def latency(
    *, jobs: int, seconds: float, capacity_jobs: int, workers: int, slots: int | None, choices: Choices
) -> None:
    """Measure from the submit to the start.

    First on an idle system, one job after the other; then at 30 % and 70 % of the throughput, by a schedule
    that does not wait for the system.
    """
    with progress_bar() as progress:
        scenario = Latency(
            progress=progress,
            jobs=jobs,
            crew=crew_of(slots, workers),
            load_seconds=seconds,
            capacity_jobs=capacity_jobs,
        )
        report = run(scenario, choices)
    end(report)


@bench.command()
@click.option("--jobs", type=JOBS, default=backlog_scenario.JOBS, show_default=True, help="How many.")
@click.option("--compare", type=JOBS, metavar="JOBS", help="Drain backlogs of that size too, and tell the ratio.")
@workers_option
@slots_option
@place_options()
@client_options
def backlog(*, jobs: int, compare: int | None, workers: int, slots: int | None, choices: Choices) -> None:
    """Drain jobs that all wait already.

    Workers are started when all are submitted. The clock runs from the first start to the last committed end.
    """
    with progress_bar() as progress:
        report = run(Backlog(progress=progress, jobs=jobs, compare=compare, crew=crew_of(slots, workers)), choices)
    end(report)


@bench.command()
@click.option("--jobs", type=JOBS, default=delayed_scenario.JOBS, show_default=True, help="How many.")
@workers_option
@slots_option
@place_options()
@client_options
def delayed(*, jobs: int, workers: int, slots: int | None, choices: Choices) -> None:
    """Measure how late delayed jobs start.

    All become due within one second.
    """
    with progress_bar() as progress:
        report = run(Delayed(progress=progress, jobs=jobs, crew=crew_of(slots, workers)), choices)
    end(report)


@bench.command()
@click.option("--jobs", type=JOBS, default=mixed_scenario.JOBS, show_default=True, help="How many.")
@slots_option
@place_options()
@client_options
def mixed(*, jobs: int, slots: int | None, choices: Choices) -> None:
    """Run jobs of many kinds.

    They have all priorities, some require labels, some are commands, of which some fail and are retried.
    """
    with progress_bar() as progress:
        report = run(Mixed(progress=progress, jobs=jobs, crew=crew_of(slots)), choices)
    end(report)


@bench.command()
@click.option("--jobs", type=JOBS, default=shell_scenario.JOBS, show_default=True, help="How many.")
@click.option("--command", default=COMMAND, show_default=True, metavar="TEXT", help="What a shell runs as each job.")
@click.option("--slots", type=click.IntRange(1, SLOTS_MAX), help="With --embedded: jobs that the worker runs at once.")
@place_options(postgres_url=False)
@client_options
def shell(*, jobs: int, command: str, slots: int | None, choices: Choices) -> None:
    """Run many short commands.

    They run at the workers that the system has, beside what two bare threads start.
    """
    if slots is not None and not choices.embedded:
        raise click.UsageError("--slots goes with --embedded: workers that run already have theirs")
    with progress_bar() as progress:
        report = run(Shell(progress=progress, jobs=jobs, command=command), choices, workers=1, slots=slots)
    end(report)


@bench.command()
@place_options(embedded=False)
@json_option
def limit(*, choices: Choices) -> None:
    """Measure what the machine can do at best.

    The raw cycle of Postgres (COPY in, claim, complete) on --postgres-url, else on one of its own; and how
    many commands two bare threads start.
    """
    url, seconds = choices.limits.postgres_url, choices.limits.seconds
    if url is None:
        end(run_to_end(measure_limits_on_our_own(seconds)))
    else:
        end(run_to_end(measure_limits(url, seconds)))
