"""`orqestra status`: a job with its output and attempts."""

import click

from orqestra.cli.documents import of_job, print_document
from orqestra.cli.options import client_options, wants_json
from orqestra.cli.parameters import ID
from orqestra.cli.session import talk
from orqestra.cli.terminal import Column, print_block, print_fields, print_table, show, show_time
from orqestra.client import Attempt, Client, Job
from orqestra.model.duration import format_duration

# Enough to see what happened; `logs` prints all of it.
SHOWN_LINES = 20
ATTEMPTS = (
    Column(title="ATTEMPT", to_right=True),
    Column(title="OUTCOME"),
    Column(title="EXIT", to_right=True),
    Column(title="REASON", shrinks=True),
    Column(title="WORKER", shrinks=True),
    Column(title="STARTED"),
    Column(title="TOOK", to_right=True),
)


@click.command()
@click.argument("job_id", metavar="ID", type=ID)
@client_options
def status(job_id: int) -> None:
    """Show a job with its output and attempts."""

    async def operation(client: Client) -> Job:
        return await client.get(job_id)

    job = talk(operation)
    if wants_json():
        print_document(of_job(job))
    else:
        _print(job)


def _print(job: Job) -> None:
    print_fields(_fields(job))
    if job.attempts:
        click.echo()
        print_table(ATTEMPTS, _attempts(job))
    for title, data in (("stdout", job.output.stdout), ("stderr", job.output.stderr)):
        if data:
            lines = data.decode(errors="replace").removesuffix("\n").split("\n")
            more = f" (the last {SHOWN_LINES} lines)" if len(lines) > SHOWN_LINES else ""
            print_block(title + more, "\n".join(lines[-SHOWN_LINES:]))


def _fields(job: Job) -> list[tuple[str, str]]:
    """Return what there is to say about a job; what is absent or usual is left out."""
    always = [
        ("job", str(job.id)),
        ("status", job.status + (" (cancel requested)" if job.cancel_requested and not job.ended else "")),
        ("type", job.type),
        ("payload", job.payload.decode(errors="replace")),
        ("queue", job.queue),
        ("priority", str(job.priority)),
        ("attempt", f"{job.attempt} of {job.max_retries + 1}"),
    ]
    sometimes = [
        ("exit", exit_text(job.exit_code, job.exit_signal)),
        ("reason", job.reason),
        ("error", job.error),
        ("processes", processes_text(job)),
        ("worker", job.worker),
        ("labels", ", ".join(f"{key}={value}" for key, value in job.labels.items())),
        ("tags", ", ".join(job.tags)),
        ("retry on", ", ".join(job.retry_on)),
        ("retry never", ", ".join(job.retry_never)),
        ("timeout", format_duration(job.timeout_ms) if job.timeout_ms else None),
        ("run", f"{job.run_id}, step {job.step}" if job.run_id else None),
        ("lost", job.lost),
        ("returned", job.returned),
        ("output", "the middle was not kept" if job.output.truncated else None),
    ]
    times = [
        ("created", job.created_at),
        ("available", job.available_at if not job.ended else None),
        ("started", job.started_at),
        ("finished", job.finished_at),
    ]
    return (
        always
        + [(name, str(value)) for name, value in sometimes if value]
        + [(name, show_time(time)) for name, time in times if time]
    )


def _attempts(job: Job) -> list[list[str]]:
    return [
        [
            show(attempt.number),
            attempt.outcome,
            exit_text(attempt.exit_code, attempt.exit_signal) or show(None),
            ", ".join(filter(None, (show(attempt.error or attempt.reason), processes_text(attempt)))),
            show(attempt.worker),
            show_time(attempt.started_at),
            format_duration(attempt.wall_us // 1000),
        ]
        for attempt in job.attempts
    ]


def processes_text(ended: Job | Attempt) -> str | None:
    """Return what became of processes that outlived the command, None if there were none."""
    counts = ((ended.killed_processes, "killed"), (ended.left_processes, "left"))
    told = " and ".join(f"{count} {what}" for count, what in counts if count)
    return f"{told} after the command" if told else None


def exit_text(exit_code: int | None, exit_signal: int | None) -> str | None:
    """Return how a command ended, None if it has not."""
    if exit_signal is not None:
        return f"signal {exit_signal}"
    return None if exit_code is None else str(exit_code)
