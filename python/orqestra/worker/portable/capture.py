"""What is kept of one output stream: its head, its tail, and the exact count of what came. Pure."""

from collections.abc import Iterator
from typing import Final

# Live output crosses in pieces of at most this many bytes.
PIECE_BYTES: Final = 1 << 16


class Capture:
    """Grows with the output up to the first `head_bytes` and the last `tail_bytes` of what comes after them."""

    def __init__(self, head_bytes: int, tail_bytes: int) -> None:
        self.total = 0
        self._head_bytes = head_bytes
        self._tail_bytes = tail_bytes
        self._head = bytearray()
        # Up to twice what is kept: so it is cut seldom.
        self._tail = bytearray()

    def push(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        self.total += len(data)
        room = self._head_bytes - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        if len(self._tail) > 2 * self._tail_bytes:
            self._cut()

    def kept(self) -> bytes:
        """Return head and tail, joined."""
        self._cut()
        return bytes(self._head + self._tail)

    def kept_from(self, offset: int) -> Iterator[tuple[int, bytes]]:
        """Yield what is kept from an offset on: pieces with their offsets, in order."""
        self._cut()
        for start, part in ((0, self._head), (self.total - len(self._tail), self._tail)):
            for at in range(max(offset - start, 0), len(part), PIECE_BYTES):
                yield start + at, bytes(part[at : at + PIECE_BYTES])

    def _cut(self) -> None:
        del self._tail[: max(len(self._tail) - self._tail_bytes, 0)]
