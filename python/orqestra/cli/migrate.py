"""`orqestra migrate`: the schema of the database that DB_URL names.

Exit codes: 0 done, also if there was nothing to do; 1 a migration failed or the schema is not one that
this version knows; 2 bad input; 4 the database can't be reached.
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from orqestra.cli.options import wants_json

Command = TypeVar("Command", bound=Callable[..., Any])


def json_option(command: Command) -> Command:
    """Add --json, whose value `print_result` gets as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)


@click.group()
def migrate() -> None:
    """Change the schema of the database."""


@migrate.command()
@click.option("--to", type=int, metavar="VERSION", help="Stop at this version.  [default: the last]")
@json_option
def up(to: int | None, as_json: bool) -> None:
    """Apply the migrations that are missing."""
    from orqestra.settings import Settings
    from orqestra.store import migrations

    url = Settings.load().db_url
    applied = asyncio.run(migrations.up(url, to=to))
    stems = [migration.stem for migration in applied]
    version = asyncio.run(migrations.version(url))
    lines = [f"applied {stem}" for stem in stems] or [f"nothing to do: the schema is at version {version}"]
    print_result({"version": version, "applied": stems}, lines, as_json)


@migrate.command()
@click.option("--steps", type=int, default=1, show_default=True, help="How many to undo.")
@json_option
def down(steps: int, as_json: bool) -> None:
    """Undo the last migration. What is in its tables is lost."""
    from orqestra.settings import Settings
    from orqestra.store import migrations

    url = Settings.load().db_url
    undone = asyncio.run(migrations.down(url, steps=steps))
    stems = [migration.stem for migration in undone]
    lines = [f"undid {stem}" for stem in stems] or ["nothing to do: the database has no schema"]
    print_result({"version": asyncio.run(migrations.version(url)), "undone": stems}, lines, as_json)


@migrate.command()
@json_option
def version(as_json: bool) -> None:
    """Print the version of the schema; 0 if there is none."""
    from orqestra.settings import Settings
    from orqestra.store import migrations

    found = asyncio.run(migrations.version(Settings.load().db_url))
    print_result({"version": found, "known": len(migrations.load())}, [str(found)], as_json)


@migrate.command()
@click.argument("name")
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("migrations"),
    show_default=True,
    help="Where the migrations are.",
)
@json_option
def create(name: str, directory: Path, as_json: bool) -> None:
    """Make the next pair of files, NAME in a-z, 0-9 and _."""
    from orqestra.store import migrations

    paths = [str(path) for path in migrations.create(name, directory)]
    print_result({"created": paths}, paths, as_json)


def print_result(document: dict[str, Any], lines: Sequence[str], as_json: bool) -> None:
    """Print the document if --json was given, before the command's name or after it; else the lines."""
    if as_json or wants_json():
        from orqestra.cli.documents import print_document

        print_document(document)
    else:
        for line in lines:
            click.echo(line)
