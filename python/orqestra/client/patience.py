"""Calls that are made again while that is safe, and no longer than the caller's patience.

A call is repeated by itself only if a second execution can do no harm: it reads, its jobs carry
idempotency keys, or the server says that nothing was stored.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from grpc.aio import AioRpcError

from orqestra.client import failures
from orqestra.client.failures import CallFailed, Failure

# Longer than a server takes to restart or a Postgres to fail over, shorter than a caller gives up.
TOTAL_SECONDS: Final = 30.0
# A call that a lost host swallowed is given up in time for another within the total.
CALL_SECONDS: Final = 10.0
CALL_LEAST_SECONDS: Final = 0.05
# The first repeat should not be felt; many clients together should not burden a server that comes back.
BACKOFF_FIRST_SECONDS: Final = 0.1
BACKOFF_LAST_SECONDS: Final = 1.5
_DOUBLINGS: Final = 10

Request = TypeVar("Request")
Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to go on: `total_seconds` over all repeats, `call_seconds` for each call."""

    total_seconds: float = TOTAL_SECONDS
    call_seconds: float = CALL_SECONDS


class Deadline:
    """The end of one caller's patience, and the waits before it."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._failures = 0
        self._ends_at: float | None = time.monotonic() + patience.total_seconds

    def restart(self) -> None:
        """Note that something went well: patience is whole again and begins with the next failure."""
        self._failures = 0
        self._ends_at = None

    @property
    def call_seconds(self) -> float:
        """How long the next call may take."""
        left = self._patience.total_seconds if self._ends_at is None else self._ends_at - time.monotonic()
        return max(min(self._patience.call_seconds, left), CALL_LEAST_SECONDS)

    async def wait(self, failure: Failure) -> None:
        """Wait before the next call, at least as long as the server asked; raise if that is too late."""
        now = time.monotonic()
        if self._ends_at is None:
            self._ends_at = now + self._patience.total_seconds
        self._failures += 1
        delay_seconds = backoff_seconds(self._failures) + failure.retry_after_ms / 1000
        if now + delay_seconds >= self._ends_at:
            raise failure.error
        await asyncio.sleep(delay_seconds)


class Caller:
    """Makes calls to the server at `address`."""

    def __init__(self, address: str, patience: Patience) -> None:
        self.address = address
        self.patience = patience

    async def call(
        self,
        method: Callable[..., Awaitable[Answer]],
        request: object,
        *,
        repeatable: bool,
    ) -> Answer:
        """Call `method`, and again while it is safe and patience lasts.

        `repeatable` says that a second execution does no harm. Raises the OrqestraError of the last call.
        """
        deadline = Deadline(self.patience)
        while True:
            try:
                return await method(request, timeout=deadline.call_seconds)
            except (AioRpcError, CallFailed) as failed:
                failure = failures.read(failed, self.address)
                if not may_repeat(failure, repeatable=repeatable):
                    raise failure.error from failed
            await deadline.wait(failure)


def may_repeat(failure: Failure, *, repeatable: bool) -> bool:
    """Return whether a call that failed so may be made again."""
    return failure.passing and (repeatable or failure.not_stored)


def backoff_seconds(failures_in_a_row: int) -> float:
    """Return a uniform delay up to a limit that doubles with each failure (1 or more)."""
    doublings = min(failures_in_a_row - 1, _DOUBLINGS)
    return random.uniform(0, min(BACKOFF_LAST_SECONDS, BACKOFF_FIRST_SECONDS * 2**doublings))  # noqa: S311  spreads load, no secret
