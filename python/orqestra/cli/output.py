"""Passing on what a job writes: byte for byte, to the same stream here."""

import sys

from orqestra.cli.failure import warn
from orqestra.client import Chunk, OutputStream


class OutputCopy:
    """Writes chunks as they come, and counts the bytes that were not kept."""

    def __init__(self) -> None:
        self._missing_bytes = 0
        self._ends: dict[tuple[int, OutputStream], int] = {}

    def write(self, chunk: Chunk) -> None:
        """Write a chunk at once, so that it is seen while the job still runs."""
        attempt_stream = (chunk.fence, chunk.stream)
        self._missing_bytes += chunk.offset - self._ends.get(attempt_stream, 0)
        self._ends[attempt_stream] = chunk.offset + len(chunk.data)
        target = sys.stdout.buffer if chunk.stream is OutputStream.STDOUT else sys.stderr.buffer
        target.write(chunk.data)
        target.flush()

    def close(self) -> None:
        """Tell if what was written is not all."""
        if self._missing_bytes:
            warn(f"{self._missing_bytes} bytes in the middle of the output were not kept.")
