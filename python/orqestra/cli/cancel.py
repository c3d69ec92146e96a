"""`orqestra cancel`: end jobs that wait, stop jobs that run."""

from collections.abc import Sequence
from typing import assert_never

import click

from orqestra.cli.documents import of_cancelled, print_document
from orqestra.cli.failure import ExitCode, warn
from orqestra.cli.options import client_options, wants_json
from orqestra.cli.parameters import ID
from orqestra.cli.session import talk
from orqestra.client import Cancelled, CancelOutcome, Client


@click.command()
@click.argument("job_ids", metavar="ID...", type=ID, nargs=-1, required=True)
@client_options
@click.pass_context
def cancel(context: click.Context, *, job_ids: tuple[int, ...]) -> None:
    """Cancel jobs that wait or run.

    A running one is told to stop and ends a little later. One that has ended already stays as it is, and
    the exit code is 1.
    """

    async def operation(client: Client) -> Sequence[Cancelled]:
        return await client.cancel(job_ids)

    answers = talk(operation)
    if wants_json():
        print_document(of_cancelled(answers))
    for answer in answers:
        _tell(answer, quiet=wants_json())
    context.exit(_exit_code(answers))


def _tell(answer: Cancelled, *, quiet: bool) -> None:
    """Tell what was done on stdout, unless a document did, and what could not be done on stderr."""
    match answer.outcome:
        case CancelOutcome.CANCELLED | CancelOutcome.STOPPING if quiet:
            return
        case CancelOutcome.CANCELLED:
            click.echo(f"{answer.id} cancelled")
        case CancelOutcome.STOPPING:
            click.echo(f"{answer.id} stopping")
        case CancelOutcome.FINISHED:
            warn(f"Error: job {answer.id} can't be cancelled: it is {answer.status} already")
        case CancelOutcome.NOT_FOUND:
            warn(f"Error: no job {answer.id}")
        case _:
            assert_never(answer.outcome)


def _exit_code(answers: Sequence[Cancelled]) -> ExitCode:
    outcomes = {answer.outcome for answer in answers}
    if CancelOutcome.NOT_FOUND in outcomes:
        return ExitCode.NOT_FOUND
    return ExitCode.FAILED if CancelOutcome.FINISHED in outcomes else ExitCode.DONE
