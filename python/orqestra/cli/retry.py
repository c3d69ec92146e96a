"""`orqestra retry`: run failed or cancelled jobs again."""

from collections.abc import Sequence

import click

from orqestra.cli.documents import of_job, print_document
from orqestra.cli.failure import ExitCode, exit_code, warn
from orqestra.cli.options import client_options, wants_json
from orqestra.cli.parameters import ID
from orqestra.cli.session import talk
from orqestra.client import Client, Job
from orqestra.model.errors import NotFound, OrqestraError, Refused

Answer = Job | OrqestraError


@click.command()
@click.argument("job_ids", metavar="ID...", type=ID, nargs=-1, required=True)
@client_options
@click.pass_context
def retry(context: click.Context, *, job_ids: tuple[int, ...]) -> None:
    """Run failed or cancelled jobs again.

    They go back to pending with a new budget of retries. A job in any other state stays as it is, and the
    exit code is 1.
    """

    async def operation(client: Client) -> list[Answer]:
        return [await _retry(client, job_id) for job_id in job_ids]

    answers = talk(operation)
    if wants_json():
        print_document(_document(job_ids, answers))
    for answer in answers:
        if isinstance(answer, OrqestraError):
            warn(f"Error: {answer}")
        elif not wants_json():
            click.echo(f"{answer.id} {answer.status}")
    context.exit(_exit_code(answers))


async def _retry(client: Client, job_id: int) -> Answer:
    """Return the job, or why it can't be retried: the others are still to be tried."""
    try:
        return await client.retry(job_id)
    except (NotFound, Refused) as error:
        return error


def _document(job_ids: Sequence[int], answers: Sequence[Answer]) -> dict[str, object]:
    return {
        "jobs": [of_job(answer) for answer in answers if isinstance(answer, Job)],
        "errors": [
            {"id": job_id, "code": answer.code, "message": str(answer)}
            for job_id, answer in zip(job_ids, answers, strict=True)
            if isinstance(answer, OrqestraError)
        ],
    }


def _exit_code(answers: Sequence[Answer]) -> ExitCode:
    codes = [exit_code(answer) for answer in answers if isinstance(answer, OrqestraError)]
    return max(codes, default=ExitCode.DONE)
