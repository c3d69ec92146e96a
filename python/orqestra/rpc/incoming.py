"""Reading from a stream of a worker, so that no read is ever cancelled: that would leak (grpc#43360)."""

import asyncio
from typing import Any, Final, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from orqestra.model.errors import InvalidInput
from orqestra.rpc.statuses import Context
from orqestra.rpc.undecodable import undecodable

HELLO_SECONDS: Final = 5.0

M = TypeVar("M", bound=Message)


async def read_hello(context: Context, kind: type[M]) -> M:
    """Return the first message, which must be a Hello, within its time.

    Raises:
        InvalidInput: it is another one, or it did not come.
    """
    first = asyncio.create_task(read_one(context))
    # A stream whose Hello never comes is aborted, which ends the read; the read itself is never cancelled.
    done, _ = await asyncio.wait([first], timeout=HELLO_SECONDS)
    if not done:
        first.add_done_callback(take_error)
        raise InvalidInput("hello", f"did not come within {HELLO_SECONDS:g} seconds")
    raw = first.result()
    message = None if raw is None else decode(kind, raw)
    if message is None or not message.HasField("hello"):
        raise InvalidInput("message", "the first message of a stream must be Hello")
    return message


async def read_one(context: Context) -> bytes | None:
    """Return the next message, None once the worker has ended its side."""
    message: Any = await context.read()
    return None if message is grpc.aio.EOF else message


def decode(kind: type[M], raw: bytes) -> M:
    """Return bytes as a message of that kind; raises InvalidInput if they are none."""
    try:
        return kind.FromString(raw)
    except DecodeError as error:
        raise undecodable(raw, kind.DESCRIPTOR) from error


def take_error(read: "asyncio.Task[Any]") -> None:
    """Take the error that ends a read nobody waits for any more, or asyncio would complain of it."""
    if not read.cancelled():
        read.exception()
