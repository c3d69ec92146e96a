"""The list of commands, and the group that loads one when it is used."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Final

import click


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Where a command is, and its line in the help; a test compares that with the command's own."""

    module: str
    attribute: str
    help: str
    is_client: bool = True
    """Whether it talks to a server, or to the database. One that does not says 1, not 4, when that is away."""


COMMANDS: Final[Mapping[str, Entry]] = {
    "submit": Entry(module="orqestra.cli.submit", attribute="submit", help="Submit a job and print its id."),
    "status": Entry(module="orqestra.cli.status", attribute="status", help="Show a job with its output and attempts."),
    "list": Entry(module="orqestra.cli.listing", attribute="list_jobs", help="List jobs, newest first."),
    "logs": Entry(module="orqestra.cli.logs", attribute="logs", help="Print what a job wrote, byte by byte."),
    "cancel": Entry(module="orqestra.cli.cancel", attribute="cancel", help="Cancel jobs that wait or run."),
    "retry": Entry(module="orqestra.cli.retry", attribute="retry", help="Run failed or cancelled jobs again."),
    "workers": Entry(module="orqestra.cli.workers", attribute="workers", help="List the workers that are connected."),
    "workflow": Entry(module="orqestra.cli.workflow", attribute="workflow", help="List and run workflows."),
    "dev": Entry(
        module="orqestra.cli.dev",
        attribute="dev",
        help="Run everything in this terminal.",
        is_client=False,
    ),
    "server": Entry(module="orqestra.cli.server", attribute="server", help="Run a server.", is_client=False),
    "worker": Entry(module="orqestra.cli.worker", attribute="worker", help="Run a worker.", is_client=False),
    "bench": Entry(module="orqestra.cli.bench", attribute="bench", help="Measure how fast the system is."),
    "migrate": Entry(
        module="orqestra.cli.migrate",
        attribute="migrate",
        help="Change the schema of the database.",
    ),
    "completion": Entry(
        module="orqestra.cli.completion",
        attribute="completion",
        help="Print the completion script for a shell.",
    ),
    "version": Entry(module="orqestra.cli.version", attribute="version", help="Print the version."),
}


class OutputClosed(Exception):
    """Nobody reads our stdout any more: `orqestra list | head -1`."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used; its help imports none."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table: the everyday ones first."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command, None if there is none of that name."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = getattr(import_module(entry.module), entry.attribute)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run the command. A reader that went away is told apart from other faults, which click does not."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise OutputClosed from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])
