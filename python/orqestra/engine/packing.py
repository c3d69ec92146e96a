"""Rows of jobs as hints, in the two forms that they travel in (docs/architecture.md)."""

from collections.abc import Sequence
from typing import Final

from orqestra._dispatch import outbox
from orqestra.store.database import Row

ENTRY_BYTES: Final = 22


def entries(rows: Sequence[Row]) -> bytes:
    """Return the outbox entries of rows with id, lane_id, priority and due_ms (0: now)."""
    return outbox.encode(
        [row["id"] for row in rows],
        [row["lane_id"] for row in rows],
        [row["priority"] for row in rows],
        [row["due_ms"] for row in rows],
    )


def hints(rows: Sequence[Row]) -> bytes:
    """Return the packed hints of rows with id, lane_id and priority, in their order."""
    return b"".join(b"%08x%d%016x" % (row["lane_id"], 9 - row["priority"], row["id"]) for row in rows)


def count(entries: bytes) -> int:
    """Return how many jobs the entries of an outbox row are about."""
    return len(entries) // ENTRY_BYTES
