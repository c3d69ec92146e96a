"""When jobs started, from the workers that started them to the one who measures: a FIFO with records.

A record is the time of CLOCK_MONOTONIC in ns, which all processes of a machine share, the number of jobs,
and their ids; each of these 8 bytes as the machine has them.
"""

import asyncio
import os
import struct
import time
from array import array
from collections.abc import Collection
from pathlib import Path
from typing import Final

from orqestra.model.report import AttemptRef

HEADER: Final = struct.Struct("=qq")
WORD_BYTES: Final = 8
READ_BYTES: Final = 1024 * 1024


class Journal:
    """The end of the worker. Nothing here waits before `close`: what the pipe does not take is kept."""

    def __init__(self, path: Path) -> None:
        """Open a FIFO that somebody reads."""
        self._descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._unwritten = bytearray()

    def note(self, attempts: Collection[AttemptRef]) -> None:
        """Write down that these start now."""
        now_ns = time.monotonic_ns()
        self._unwritten += HEADER.pack(now_ns, len(attempts))
        self._unwritten += array("q", [attempt.job_id for attempt in attempts]).tobytes()
        self._write()

    def close(self) -> None:
        """Write what is left, however long that takes."""
        os.set_blocking(self._descriptor, True)
        while self._unwritten:
            self._write()
        os.close(self._descriptor)

    def _write(self) -> None:
        try:
            del self._unwritten[: os.write(self._descriptor, self._unwritten)]
        except BlockingIOError:
            return


class Starts:
    """All starts that were told, of however many workers: job id to time in ns."""

    def __init__(self) -> None:
        self.at_ns: dict[int, int] = {}
        self.count = 0
        self.first_ns: int | None = None
        self._awaited: dict[int, asyncio.Event] = {}

    @property
    def doubled(self) -> int:
        """How many starts were not a job's first."""
        return self.count - len(self.at_ns)

    async def seen(self, job_id: int, seconds: float) -> bool:
        """Return True once it is known when a job started, or False after so many seconds. One may wait for a job."""
        if job_id in self.at_ns:
            return True
        started = self._awaited[job_id] = asyncio.Event()
        try:
            async with asyncio.timeout(seconds):
                return await started.wait()
        except TimeoutError:
            return False
        finally:
            self._awaited.pop(job_id, None)

    def add(self, at_ns: int, ids: Collection[int]) -> None:
        """Note the start of a batch."""
        self.count += len(ids)
        self.first_ns = at_ns if self.first_ns is None else min(at_ns, self.first_ns)
        self.at_ns.update(dict.fromkeys(ids, at_ns))
        if self._awaited:
            for job_id in self._awaited.keys() & ids:
                self._awaited[job_id].set()


class Reader:
    """The end of the one who measures: from a FIFO that it makes to `starts`."""

    def __init__(self, path: Path, starts: Starts) -> None:
        os.mkfifo(path)
        self._starts = starts
        self._unread = bytearray()
        self._ended = asyncio.Event()
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._descriptor, self._read)

    async def end(self) -> None:
        """Return once the worker has closed its end, and all is read."""
        await self._ended.wait()

    def close(self) -> None:
        """Listen no longer."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
        self._ended.set()

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self.close()
            return
        self._unread += data
        self._take_records()

    def _take_records(self) -> None:
        at = 0
        while len(self._unread) - at >= HEADER.size:
            at_ns, count = HEADER.unpack_from(self._unread, at)
            end = at + HEADER.size + count * WORD_BYTES
            if end > len(self._unread):
                break
            self._starts.add(at_ns, array("q", bytes(self._unread[at + HEADER.size : end])))
            at = end
        del self._unread[:at]
