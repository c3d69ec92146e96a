"""A named pipe between a test and the commands that it has run: either can wait for the other."""

import asyncio
import os
from pathlib import Path
from typing import Self

PATIENCE_SECONDS = 10.0
LINE_BYTES = 4096


class Fifo:
    """`echo text > PATH` in a command ends `line()` here; `release()` here ends `read _ < PATH` there."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        # Opened for both, so that neither side has to wait for the other to open it.
        self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def __str__(self) -> str:
        return str(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    async def line(self) -> str:
        """Return what a command wrote."""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._descriptor, readable.set)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await readable.wait()
        finally:
            loop.remove_reader(self._descriptor)
        return os.read(self._descriptor, LINE_BYTES).decode().strip()

    def release(self) -> None:
        """Let a command go on."""
        os.write(self._descriptor, b"\n")
