"""From gRPC statuses to the error tree, and whether a call may be made again.

The trailer `orqestra-code` decides where there is one; without it the call did not reach a server of
ours, or one that could no longer answer properly, and the gRPC status has to do.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import grpc
from grpc.aio import AioRpcError

from orqestra.model import errors
from orqestra.v1.jobs_pb2 import Refusal

CODE: Final = "orqestra-code"
STORED: Final = "orqestra-stored"
RETRY_AFTER: Final = "orqestra-retry-after-ms"
RETRY_AFTER_DEFAULT_MS: Final = 1000
# A write that finds its stream broken hides the status by which the server or the network ended it.
WRITE_TO_BROKEN_STREAM: Final = "Internal error from Core"

# What a later call may get past. A broken connection and a stopping server show as several of these.
PASSING: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
    }
)
STATUS_CODES: Final = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidInput.code,
    grpc.StatusCode.OUT_OF_RANGE: errors.InvalidInput.code,
    grpc.StatusCode.NOT_FOUND: errors.NotFound.code,
    grpc.StatusCode.ALREADY_EXISTS: errors.Refused.code,
    grpc.StatusCode.FAILED_PRECONDITION: errors.Refused.code,
    grpc.StatusCode.ABORTED: errors.MaybeStored.code,
}
_STATUSES: Final = {status.value[0]: status for status in grpc.StatusCode}


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A call that failed: what to raise, and what is known about making it again."""

    error: errors.OrqestraError
    passing: bool
    """Whether the same call may succeed later."""
    not_stored: bool
    """Whether the server says that nothing was stored: then even a submit without a key may be repeated."""
    retry_after_ms: int


class CallFailed(Exception):
    """What a call on a shared stream raises where a unary one raises AioRpcError."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure.error))
        self.failure = failure


def read(failed: AioRpcError | CallFailed, address: str) -> Failure:
    """Return what a failed call to the server at `address` means."""
    if isinstance(failed, CallFailed):
        return failed.failure
    trailers = {name: str(value) for name, value in failed.trailing_metadata() or ()}
    retry_after = trailers.get(RETRY_AFTER, "")
    broken = failed.details() == WRITE_TO_BROKEN_STREAM
    status = grpc.StatusCode.UNAVAILABLE if broken else failed.code()
    refusal = Refusal(
        status=status.value[0],
        code=trailers.get(CODE, ""),
        message=failed.details() or "",
        stored=trailers.get(STORED) != "no",
        retry_after_ms=int(retry_after) if retry_after.isdecimal() else 0,
    )
    return read_refusal(refusal, address)


def read_refusal(refusal: Refusal, address: str) -> Failure:
    """Return what the refusal of one batch of a stream means: the same as of a call of its own."""
    status = _STATUSES.get(refusal.status, grpc.StatusCode.UNKNOWN)
    # Without a code of ours this status means that a message was too large: it would be refused again.
    overloaded = refusal.code == errors.Overloaded.code
    return Failure(
        error=_error(refusal, status, address),
        passing=status in PASSING or overloaded,
        not_stored=not refusal.stored,
        retry_after_ms=refusal.retry_after_ms,
    )


def _error(refusal: Refusal, status: grpc.StatusCode, address: str) -> errors.OrqestraError:
    build = _BUILDERS.get(refusal.code or STATUS_CODES.get(status, ""))
    if build is not None:
        return build(refusal)
    if status in PASSING:
        return errors.Unavailable(_unreachable(address, refusal.message))
    return errors.OrqestraError(f"the server answered {status.name}: {refusal.message}")


def _invalid_input(refusal: Refusal) -> errors.OrqestraError:
    field, separator, problem = refusal.message.partition(": ")
    return errors.InvalidInput(field, problem) if separator else errors.InvalidInput("request", refusal.message)


def _not_found(refusal: Refusal) -> errors.OrqestraError:
    missing = re.fullmatch(r"no (\w+) (.*)", refusal.message, re.DOTALL)
    return errors.NotFound(*missing.groups()) if missing else errors.NotFound("such thing:", refusal.message)


def _overloaded(refusal: Refusal) -> errors.OrqestraError:
    return errors.Overloaded(refusal.message, retry_after_ms=refusal.retry_after_ms or RETRY_AFTER_DEFAULT_MS)


def _unavailable(refusal: Refusal) -> errors.OrqestraError:
    away = errors.StorageUnavailable if refusal.code == errors.StorageUnavailable.code else errors.Unavailable
    return away(refusal.message, retry_after_ms=refusal.retry_after_ms or RETRY_AFTER_DEFAULT_MS)


def _unreachable(address: str, details: str) -> str:
    """Say which server did not answer, why, and where its address comes from."""
    cause = "connection refused" if "Connection refused" in details else details.rpartition("last error: ")[2]
    return f"no answer from the server at {address} ({cause}); GRPC_ADDR names the server's address"


_BUILDERS: Final[dict[str, Callable[[Refusal], errors.OrqestraError]]] = {
    errors.InvalidInput.code: _invalid_input,
    errors.InvalidDefinition.code: _invalid_input,
    errors.NotFound.code: _not_found,
    errors.Refused.code: lambda refusal: errors.Refused(refusal.message),
    errors.Overloaded.code: _overloaded,
    errors.Unavailable.code: _unavailable,
    errors.StorageUnavailable.code: _unavailable,
    errors.MaybeStored.code: lambda refusal: errors.MaybeStored(refusal.message),
}
