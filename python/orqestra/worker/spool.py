"""Results of commands on disk: there before they are sent, and until they are acknowledged.

Whatever kills the worker, what a command did is told once its directory is used again. While the disk
takes nothing or does not answer, results are sent from memory, and the worker offers no slots: what it
would run then might have to run again.
"""

import itertools
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from google.protobuf.message import DecodeError

from orqestra._dispatch import Spool
from orqestra.failpoint import Point, reached
from orqestra.log import get_logger
from orqestra.model.errors import StartFailed
from orqestra.model.report import AttemptRef
from orqestra.v1.worker_pb2 import Result, StoreOutput
from orqestra.worker.outcome import Finished, Piece
from orqestra.worker.outgoing import attempt_of
from orqestra.worker.results import Unacknowledged, store_output

# The first byte of a record: a later version may write others.
VERSION: Final = b"\x01"
LENGTH: Final = struct.Struct("<I")
# Until a disk that has not made a record durable counts as one that does not answer.
SILENCE_SECONDS: Final = 5.0

log = get_logger(__name__)


class ResultSpool:
    """Stands behind `results`: what is added here is released there once it is durable.

    What is in `results` alone may be removed here as well.

    `health` is empty while all is well, else a sentence. What is added and removed reaches the disk after
    the next `flush`.
    """

    def __init__(
        self, spool: Spool, results: Unacknowledged, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.health = ""
        self._spool = spool
        self._results = results
        self._monotonic = monotonic
        self._silent = False
        self._keys: dict[AttemptRef, int] = {}
        # Oldest first: each with the time since which it waits.
        self._undurable: dict[int, tuple[AttemptRef, float]] = {}
        self._added: list[tuple[int, bytes]] = []
        self._removed: list[int] = []
        self._set_aside: list[int] = []
        self._next_key = itertools.count(self._restore())

    def add(self, attempt: AttemptRef, finished: Finished) -> None:
        """Keep the end of an attempt; it is sent once it is durable."""
        key = next(self._next_key)
        self._keys[attempt] = key
        self._added.append((key, encode(finished)))
        self._results.hold(attempt, finished)
        if self.health:
            self._results.release(attempt)
        else:
            self._undurable[key] = (attempt, self._monotonic())

    def remove(self, attempt: AttemptRef, *, keep_aside: bool = False) -> bool:
        """Forget an attempt, here and in `results`. Return whether it was there."""
        key = self._keys.pop(attempt, None)
        if key is not None:
            self._undurable.pop(key, None)
            (self._set_aside if keep_aside else self._removed).append(key)
        return self._results.remove(attempt)

    def flush(self) -> None:
        """Hand over to the disk what was added and removed."""
        if self._added:
            self._spool.append(self._added)
            self._added = []
        if self._silent:
            # What is not wanted is not written, and then no sync would tell that the disk is back.
            return
        if self._removed:
            self._spool.delete(self._removed)
            self._removed = []
        for key in self._set_aside:
            self._spool.set_aside(key)
        self._set_aside = []

    def read(self) -> bool:
        """Release what has become durable, and all if the disk takes nothing or does not answer.

        Call it when the descriptor of the spool is readable, and every second. Return whether `health` has
        changed.
        """
        synced, error = self._spool.take()
        if synced:
            reached(Point.SPOOLED)
        for key in synced:
            self._release(key)
        if error is not None:
            self._silent = False
            return self._note(f"spool: {os.strerror(error)}")
        self._silent = self._overdue() or (self._silent and not synced)
        return self._note("spool: the disk does not answer" if self._silent else "")

    def release_all(self) -> None:
        """Have everything sent from memory: there is no time to wait for the disk."""
        for key in list(self._undurable):
            self._release(key)

    def _release(self, key: int) -> None:
        if key in self._undurable:
            attempt, _ = self._undurable.pop(key)
            self._results.release(attempt)

    def _overdue(self) -> bool:
        oldest = next(iter(self._undurable.values()), None)
        return oldest is not None and self._monotonic() - oldest[1] >= SILENCE_SECONDS

    def _note(self, health: str) -> bool:
        if health:
            self.release_all()
        if health == self.health:
            return False
        if health:
            log.error("results can't be made durable, no slots are offered until they can", reason=health)
        else:
            log.info("results are durable again")
        self.health = health
        return True

    def _restore(self) -> int:
        """Take over what an earlier process left; return a key that was never used."""
        records = self._spool.recovered()
        for key, record in records:
            try:
                finished = decode(record)
            except (ValueError, DecodeError) as error:
                log.warning("a spooled result can't be read, it is kept aside", key=f"{key:016x}", reason=str(error))
                self._spool.set_aside(key)
            else:
                attempt = attempt_of(finished.result.attempt)
                self._keys[attempt] = key
                self._results.add(attempt, finished)
        if records:
            log.info("results of an earlier process are delivered now", count=len(records))
        if self._spool.torn or self._spool.damaged:
            log.warning("the spool was damaged", torn=self._spool.torn, damaged=self._spool.damaged)
        # By the clock, so that what was set aside keeps its name for itself.
        return max(time.time_ns(), *(key + 1 for key, _ in records), 0)


def open_spool(directory: Path) -> Spool:
    """Open the spool in a directory of the worker's own.

    Raises:
        StartFailed: the directory can't be used.
    """
    try:
        return Spool(directory)
    except OSError as error:
        raise StartFailed(
            f"the spool {directory} can't be used: {error}; it holds results that no server has acknowledged, "
            "and a worker needs it to start"
        ) from error


def encode(finished: Finished) -> bytes:
    """Return the record of a result and its output: each message after its length."""
    result = finished.result.SerializeToString()
    parts = [VERSION, LENGTH.pack(len(result)), result]
    for piece in finished.ahead:
        output = store_output(finished.result, piece).SerializeToString()
        parts += (LENGTH.pack(len(output)), output)
    return b"".join(parts)


def decode(record: bytes) -> Finished:
    """Return what was encoded.

    Raises:
        ValueError: it is a record of another version, or none.
        DecodeError: one of its messages is none.
    """
    if not record.startswith(VERSION):
        raise ValueError(f"a record of version {record[:1].hex() or 'none'}, this worker knows {VERSION.hex()}")
    result, *outputs = _messages(record)
    pieces = map(StoreOutput.FromString, outputs)
    return Finished(
        result=Result.FromString(result),
        ahead=tuple(Piece(stream=piece.stream, offset=piece.offset, data=piece.data) for piece in pieces),
    )


def _messages(record: bytes) -> list[bytes]:
    messages = []
    at = len(VERSION)
    while at < len(record):
        start = at + LENGTH.size
        if start > len(record):
            raise ValueError("a length is cut off")
        at = start + LENGTH.unpack_from(record, at)[0]
        if at > len(record):
            raise ValueError("a message is cut off")
        messages.append(record[start:at])
    if not messages:
        raise ValueError("no message")
    return messages
