"""How workflows and runs look to people."""

from collections.abc import Sequence
from typing import Final

import click

from orqestra.cli.failure import warn
from orqestra.cli.status import exit_text
from orqestra.cli.terminal import Column, plain, print_fields, print_table, show, show_time
from orqestra.client import Run, RunStep, WorkflowList

# A step that was not reached has no job and so no state.
NOT_REACHED: Final = "-"
WORKFLOWS: Final = (
    Column(title="NAME", shrinks=True),
    Column(title="STEPS", shrinks=True),
    Column(title="FILE", shrinks=True),
)
RUNS: Final = (
    Column(title="ID", to_right=True),
    Column(title="STATUS"),
    Column(title="WORKFLOW", shrinks=True),
    Column(title="CREATED"),
    Column(title="FINISHED"),
    Column(title="ERROR", shrinks=True),
)
STEPS: Final = (
    Column(title="STEP", shrinks=True),
    Column(title="STATUS"),
    Column(title="JOB", to_right=True),
    Column(title="TRY", to_right=True),
    Column(title="EXIT", to_right=True),
    Column(title="STARTED"),
    Column(title="FINISHED"),
)


def print_workflows(listing: WorkflowList) -> None:
    """Print the definitions; what could not be loaded goes to stderr."""
    print_table(WORKFLOWS, [[each.name, " > ".join(each.steps), each.file] for each in listing.workflows])
    for broken in listing.broken:
        where = broken.file if broken.line is None else f"{broken.file}:{broken.line}"
        warn(plain(f"Not loaded: {where}: {broken.problem}"))


def print_runs(runs: Sequence[Run]) -> None:
    """Print runs, one a line."""
    rows = [
        [
            str(run.id),
            run.status,
            run.workflow,
            show_time(run.created_at),
            show_time(run.finished_at),
            show(run.error),
        ]
        for run in runs
    ]
    print_table(RUNS, rows)


def print_run(run: Run) -> None:
    """Print a run and its steps."""
    fields = [("run", str(run.id)), ("workflow", run.workflow), ("status", str(run.status))]
    if run.error:
        fields.append(("error", run.error))
    if run.cancel_requested and not run.ended:
        fields.append(("cancel", "requested"))
    print_fields([*fields, ("created", show_time(run.created_at)), ("finished", show_time(run.finished_at))])
    click.echo()
    print_table(STEPS, [_row(step) for step in run.steps])


def _row(step: RunStep) -> list[str]:
    job = step.job
    if job is None:
        return [step.key, *[NOT_REACHED] * (len(STEPS) - 1)]
    return [
        step.key,
        job.status,
        str(job.id),
        f"{job.attempt}/{job.max_retries + 1}",
        show(exit_text(job.exit_code, job.exit_signal)),
        show_time(job.started_at),
        show_time(job.finished_at),
    ]
