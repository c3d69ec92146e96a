"""`orqestra logs`: what a job wrote, byte for byte."""

import click

from orqestra.cli.documents import of_bytes, print_document
from orqestra.cli.options import client_options, wants_json
from orqestra.cli.output import OutputCopy
from orqestra.cli.parameters import ID
from orqestra.cli.session import talk
from orqestra.client import Client, OutputStream


@click.command()
@click.argument("job_id", metavar="ID", type=ID)
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends, attempt after attempt.")
@client_options
def logs(job_id: int, *, follow: bool) -> None:
    """Print what a job wrote, byte by byte.

    Its stdout goes to stdout, its stderr to stderr: of the latest attempt, unless it is followed.
    """
    parts = {OutputStream.STDOUT: bytearray(), OutputStream.STDERR: bytearray()}
    copy = OutputCopy()
    as_json = wants_json()

    async def operation(client: Client) -> None:
        async for chunk in client.output(job_id, follow=follow):
            if as_json:
                parts[chunk.stream] += chunk.data
            else:
                copy.write(chunk)

    talk(operation)
    copy.close()
    if as_json:
        texts = [of_bytes(stream.value, bytes(data)) for stream, data in parts.items()]
        print_document({"id": job_id} | texts[0] | texts[1])
