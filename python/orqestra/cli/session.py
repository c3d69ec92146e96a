"""One command's talk with the server: connect, do, disconnect."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import click

from orqestra.cli.options import PATIENCE, PATIENCE_SECONDS, SERVER
from orqestra.client import Client, Patience
from orqestra.settings import Settings

Result = TypeVar("Result")


def talk(operation: Callable[[Client], Awaitable[Result]]) -> Result:
    """Run `operation` with a client of the server that --server, GRPC_ADDR or the default names.

    Raises what the operation raises; KeyboardInterrupt once its calls are cancelled.
    """
    options = click.get_current_context().meta
    address = Settings.load(grpc_address=options.get(SERVER)).grpc_address.dial
    patience = Patience(total_seconds=options.get(PATIENCE, PATIENCE_SECONDS))
    return asyncio.run(_talk(address, patience, operation))


async def _talk(address: str, patience: Patience, operation: Callable[[Client], Awaitable[Result]]) -> Result:
    async with Client(address, patience=patience) as client:
        return await operation(client)
