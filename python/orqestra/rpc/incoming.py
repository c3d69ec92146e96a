"""Reading from a stream of a worker, so that no read is ever cancelled: that would leak (grpc#43360)."""

import asyncio
from typing import Any, Final, TypeVar

import grpc

from orqestra.model.errors import InvalidInput
from orqestra.rpc.statuses import Context

HELLO_SECONDS: Final = 5.0

Message = TypeVar("Message")


async def read_hello(context: Context, _kind: type[Message]) -> Message:
    """Return the first message, which must be a Hello, within its time.

    Raises:
        InvalidInput: it is another one, or it did not come.
    """
    first = asyncio.create_task(read_one(context, _kind))
    # A stream whose Hello never comes is aborted, which ends the read; the read itself is never cancelled.
    done, _ = await asyncio.wait([first], timeout=HELLO_SECONDS)
    if not done:
        first.add_done_callback(take_error)
        raise InvalidInput("hello", f"did not come within {HELLO_SECONDS:g} seconds")
    message: Any = first.result()
    if message is None or not message.HasField("hello"):
        raise InvalidInput("message", "the first message of a stream must be Hello")
    hello: Message = message
    return hello


async def read_one(context: Context, _kind: type[Message]) -> Message | None:
    """Return the next message, None once the worker has ended its side."""
    message: Any = await context.read()
    return None if message is grpc.aio.EOF else message


def take_error(read: "asyncio.Task[Any]") -> None:
    """Take the error that ends a read nobody waits for any more, or asyncio would complain of it."""
    if not read.cancelled():
        read.exception()
