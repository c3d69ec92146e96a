"""Errors as gRPC statuses: one table, and the trailers that callers may rely on."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, NoReturn

import grpc

from orqestra.log import get_logger
from orqestra.model.errors import (
    InvalidInput,
    MaybeStored,
    NotFound,
    OrqestraError,
    Overloaded,
    Refused,
    StorageUnavailable,
    Unavailable,
)

Context = grpc.aio.ServicerContext[Any, Any]

# The first class that an error is an instance of counts.
STATUSES: Final[tuple[tuple[type[OrqestraError], grpc.StatusCode], ...]] = (
    (InvalidInput, grpc.StatusCode.INVALID_ARGUMENT),
    (NotFound, grpc.StatusCode.NOT_FOUND),
    (Refused, grpc.StatusCode.FAILED_PRECONDITION),
    (Overloaded, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (Unavailable, grpc.StatusCode.UNAVAILABLE),
    (MaybeStored, grpc.StatusCode.ABORTED),
)
NOT_STORED: Final = (InvalidInput, Overloaded, StorageUnavailable, NotFound, Refused)

log = get_logger(__name__)


def status_of(error: OrqestraError) -> grpc.StatusCode:
    """Return the status of an error."""
    return next((status for kind, status in STATUSES if isinstance(error, kind)), grpc.StatusCode.INTERNAL)


def trailers_of(error: OrqestraError) -> tuple[tuple[str, str], ...]:
    """Return the trailers that go with an error."""
    trailers = [("orqestra-code", error.code)]
    if isinstance(error, NOT_STORED):
        trailers.append(("orqestra-stored", "no"))
    if isinstance(error, Overloaded | Unavailable):
        trailers.append(("orqestra-retry-after-ms", str(error.retry_after_ms)))
    if isinstance(error, InvalidInput):
        trailers.append(("orqestra-field", error.field.encode("ascii", "replace").decode()))
    return tuple(trailers)


@asynccontextmanager
async def as_status(context: Context) -> AsyncIterator[None]:
    """End the call with the status of whatever OrqestraError is raised inside.

    Anything else is a fault of ours: it is logged under an id, and the caller gets only the id.
    """
    try:
        yield
    except OrqestraError as error:
        await _abort(context, status_of(error), str(error), trailers_of(error))
    except grpc.aio.AbortError:
        raise
    except Exception:
        incident = secrets.token_hex(4)
        log.exception("request failed", incident=incident)
        await _abort(
            context,
            grpc.StatusCode.INTERNAL,
            f"the server failed; its log tells why under {incident}",
            (("orqestra-code", "internal"),),
        )


async def _abort(
    context: Context, status: grpc.StatusCode, message: str, trailers: tuple[tuple[str, str], ...]
) -> NoReturn:
    # A NUL or newline in a quoted value must not end up in a header.
    await context.abort(status, message.replace("\0", "\\0"), trailers)
    raise AssertionError("abort raises")
