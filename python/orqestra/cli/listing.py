"""`orqestra list`: one page of jobs."""

import click

from orqestra.cli.documents import of_page, print_document
from orqestra.cli.failure import warn
from orqestra.cli.options import client_options, wants_json
from orqestra.cli.parameters import ID, Pair, Words, flatten
from orqestra.cli.session import talk
from orqestra.cli.status import exit_text
from orqestra.cli.terminal import Column, print_table, show, show_time
from orqestra.client import Client, Job, JobFilter, JobPage, JobType
from orqestra.model import limits
from orqestra.model.lifecycle import State

COLUMNS = (
    Column(title="ID", to_right=True),
    Column(title="STATUS"),
    Column(title="TYPE"),
    Column(title="QUEUE", shrinks=True),
    Column(title="PRI", to_right=True),
    Column(title="TRY", to_right=True),
    Column(title="EXIT", to_right=True),
    Column(title="CREATED"),
    Column(title="WORKER", shrinks=True),
    Column(title="TAGS", shrinks=True),
)
# The empty word stands for all and is the default.
TYPE = click.Choice(["", *(each.value for each in JobType)])


@click.command("list")
@click.option("--status", type=Words([*State]), multiple=True, help="Only these; may be given again.")
@click.option("--queue", default="", metavar="QUEUE", help="Only of this queue.")
@click.option("--type", "job_type", default="", type=TYPE, metavar="TYPE", help="Only of this type.")
@click.option("--label", type=Pair(), multiple=True, metavar="K=V", help="Only jobs that require it.")
@click.option("--tag", multiple=True, metavar="TAG", help="Only jobs that bear it.")
@click.option("--limit", type=click.IntRange(1, limits.PAGE_JOBS), help="How many at most.  [50]")
@click.option("--after", type=ID, help="Go on after the page before: its `next`.")
@client_options
def list_jobs(
    *,
    status: tuple[tuple[str, ...], ...],
    queue: str,
    job_type: str,
    label: tuple[tuple[str, str], ...],
    tag: tuple[str, ...],
    limit: int | None,
    after: int | None,
) -> None:
    """List jobs, newest first."""
    where = JobFilter(
        statuses=tuple(State(word) for word in flatten(status)),
        queue=queue,
        type=job_type,
        labels=dict(label),
        tags=tag,
    )

    async def operation(client: Client) -> JobPage:
        return await client.list(where, limit=limit, after=after)

    page = talk(operation)
    if wants_json():
        print_document(of_page(page))
        return
    print_table(COLUMNS, [_row(job) for job in page.jobs])
    if page.next is not None:
        warn(f"More with --after {page.next}")


def _row(job: Job) -> list[str]:
    return [
        str(job.id),
        job.status,
        job.type,
        job.queue,
        str(job.priority),
        f"{job.attempt}/{job.max_retries + 1}",
        show(exit_text(job.exit_code, job.exit_signal)),
        show_time(job.created_at),
        show(job.worker),
        show(",".join(job.tags)),
    ]
