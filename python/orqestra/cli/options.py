"""The options that every client command has, before and after its name.

Part of every start, so nothing heavy is imported here.
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

SERVER: Final = "orqestra.server"
JSON: Final = "orqestra.json"
PATIENCE: Final = "orqestra.patience"
# Who mistyped an address should not wait long, and the restart of a server should go unnoticed.
PATIENCE_SECONDS: Final = 10.0


def client_options(command: Command) -> Command:
    """Add --server, --json and --patience. Read them with `wants_json` and `session`."""
    for option in (
        click.option(
            "--patience",
            type=click.FloatRange(0, 3600),
            metavar="SECONDS",
            help=f"How long to try a server that does not answer.  [default: {PATIENCE_SECONDS:g}]",
            expose_value=False,
            callback=_keep(PATIENCE),
        ),
        json_option,
        click.option(
            "--server",
            metavar="HOST:PORT",
            help="The server to talk to; else GRPC_ADDR.",
            expose_value=False,
            callback=_keep(SERVER),
        ),
    ):
        command = option(command)
    return command


def json_option(command: Command) -> Command:
    """Add --json alone, for a command that asks no server."""
    return click.option(
        "--json", is_flag=True, help="Print one JSON document.", expose_value=False, callback=_keep(JSON)
    )(command)


def wants_json() -> bool:
    """Return whether --json was given, before or after the command's name."""
    return bool(click.get_current_context().meta.get(JSON))


def _keep(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    """Return a callback that notes a value, if one was given, for the command and all above it."""

    def callback(context: click.Context, _parameter: click.Parameter, value: Any) -> None:
        if value is not None and value is not False:
            context.meta[name] = value

    return callback
