"""The outbox with struct, a dict and sorted()."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

ENTRY = struct.Struct(">qihq")
HINT_BYTES = 25


class Entry(NamedTuple):
    id: int
    lane: int
    priority: int
    due_ms: int


@dataclass(frozen=True, kw_only=True)
class Push:
    ready: bytes
    delayed: bytes
    lanes: list[int]


def encode(entries: Sequence[Entry]) -> bytes:
    return b"".join(ENTRY.pack(*entry) for entry in entries)


def drain(rows: Sequence[bytes], now_ms: int, max_hints: int) -> list[Push]:
    latest = {entry.id: entry for row in rows for entry in map(Entry._make, ENTRY.iter_unpack(row))}
    ready = sorted(
        (entry for entry in latest.values() if entry.due_ms <= now_ms),
        key=lambda entry: (entry.lane, -entry.priority, entry.id),
    )
    delayed = sorted(
        (entry for entry in latest.values() if entry.due_ms > now_ms),
        key=lambda entry: (entry.due_ms, entry.id),
    )
    planned = ready + delayed
    starts = range(0, len(planned), max_hints)
    return [_push(planned[start : start + max_hints], now_ms) for start in starts]


def regroup(hints: bytes, max_hints: int) -> list[Push]:
    entries = [
        Entry(id=int(hint[9:], 16), lane=int(hint[:8], 16), priority=9 - int(hint[8:9]), due_ms=0)
        for hint in split(hints)
    ]
    return drain([encode(entries)], 0, max_hints)


def split(hints: bytes) -> list[bytes]:
    return [hints[start : start + HINT_BYTES] for start in range(0, len(hints), HINT_BYTES)]


def hint(entry: Entry) -> bytes:
    return f"{entry.lane:08x}{9 - entry.priority}{entry.id:016x}".encode()


def _push(entries: Sequence[Entry], now_ms: int) -> Push:
    ready = [entry for entry in entries if entry.due_ms <= now_ms]
    delayed = [entry for entry in entries if entry.due_ms > now_ms]
    return Push(
        ready=b"".join(hint(entry) for entry in ready),
        delayed=b"".join(f"{entry.due_ms:013}".encode() + hint(entry) for entry in delayed),
        lanes=sorted({entry.lane for entry in ready}),
    )
