"""`orqestra version`."""

import click

from orqestra import __version__
from orqestra.cli.documents import print_document
from orqestra.cli.options import client_options, wants_json


@click.command()
@client_options
def version() -> None:
    """Print the version."""
    if wants_json():
        print_document({"version": __version__})
    else:
        click.echo(f"orqestra {__version__}")
