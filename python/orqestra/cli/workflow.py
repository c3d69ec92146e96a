"""`orqestra workflow`: definitions and runs."""

import click

from orqestra.cli.documents import of_run, of_runs, of_workflows, print_document
from orqestra.cli.failure import ExitCode, warn
from orqestra.cli.options import client_options, wants_json
from orqestra.cli.parameters import ID, Words, flatten
from orqestra.cli.run_view import print_run, print_runs, print_workflows
from orqestra.cli.session import talk
from orqestra.client import Client, Run, RunFilter, RunPage, WorkflowList, new_key
from orqestra.model import limits
from orqestra.model.lifecycle import RunState


@click.group()
def workflow() -> None:
    """List and run workflows."""


@workflow.command("list")
@client_options
def list_workflows() -> None:
    """List the workflows that the server has loaded, and the files it could not load."""

    async def operation(client: Client) -> WorkflowList:
        return await client.workflows.list()

    listing = talk(operation)
    if wants_json():
        print_document(of_workflows(listing))
    else:
        print_workflows(listing)


@workflow.command()
@click.argument("name")
@click.option("--key", metavar="KEY", help="The same key again answers the first run.  [random]")
@click.option("--wait", is_flag=True, help="Wait for the end: exit 0 if completed, 1 if failed, 125 if cancelled.")
@client_options
@click.pass_context
def trigger(context: click.Context, name: str, *, key: str | None, wait: bool) -> None:
    """Start a run and print its id."""
    from orqestra.cli.run_wait import run_exit_code, wait_for_run

    async def operation(client: Client) -> Run:
        return await client.workflows.trigger(name, key=new_key() if key is None else key)

    run = talk(operation)
    if not wait:
        _show_id(run)
        return
    ended = wait_for_run(run.id)
    if ended is None:
        context.exit(ExitCode.INTERRUPTED)
    if wants_json():
        print_document(of_run(ended))
    else:
        print_run(ended)
    context.exit(run_exit_code(ended))


@workflow.command()
@click.argument("run_id", metavar="RUN_ID", type=ID)
@client_options
def status(run_id: int) -> None:
    """Show a run with its steps."""

    async def operation(client: Client) -> Run:
        return await client.workflows.run(run_id)

    run = talk(operation)
    if wants_json():
        print_document(of_run(run))
    else:
        print_run(run)


@workflow.command()
@click.option("--workflow", "name", default="", metavar="NAME", help="Only of this workflow.")
@click.option("--status", type=Words([*RunState]), multiple=True, help="Only these; may be given again.")
@click.option("--limit", type=click.IntRange(1, limits.PAGE_JOBS), help="How many at most.  [50]")
@click.option("--after", type=ID, help="Go on after the page before: its `next`.")
@client_options
def runs(*, name: str, status: tuple[tuple[str, ...], ...], limit: int | None, after: int | None) -> None:
    """List runs, newest first."""
    where = RunFilter(workflow=name, statuses=tuple(RunState(word) for word in flatten(status)))

    async def operation(client: Client) -> RunPage:
        return await client.workflows.runs(where, limit=limit, after=after)

    page = talk(operation)
    if wants_json():
        print_document(of_runs(page))
        return
    print_runs(page.runs)
    if page.next is not None:
        warn(f"More with --after {page.next}")


@workflow.command()
@click.argument("run_id", metavar="RUN_ID", type=ID)
@client_options
@click.pass_context
def cancel(context: click.Context, run_id: int) -> None:
    """Stop a run: no further step starts, the one that runs is told to stop."""

    async def operation(client: Client) -> Run:
        return await client.workflows.cancel(run_id)

    run = talk(operation)
    if wants_json():
        print_document(of_run(run))
    if run.status in {RunState.COMPLETED, RunState.FAILED}:
        warn(f"Error: run {run.id} can't be cancelled: it is {run.status} already")
        context.exit(ExitCode.FAILED)
    if not wants_json():
        click.echo(f"{run.id} {run.status if run.ended else 'stopping'}")


def _show_id(run: Run) -> None:
    if wants_json():
        print_document(of_run(run))
    else:
        click.echo(run.id)
