"""Counts in shared memory how often the handler ran in this process, where the runner sees it.

The runner names a folder in COUNTS. Each process makes a file of 16 bytes there at its first job: how many
jobs its handler has taken (u64), and when it took the first one (f64, seconds of the monotonic clock).
Nobody but the runner reads it; it costs a job less than a microsecond.
"""

import mmap
import os
import struct
import threading
import time
from pathlib import Path

PAGE = struct.Struct("<Qd")


class Counter:
    """Call it once for each job. Threads may share one; a process has its own, made after the fork."""

    def __init__(self):
        self._lock = threading.Lock()
        self._page = None
        self._jobs = 0
        self._first_at = 0.0

    def __call__(self):
        with self._lock:
            if self._page is None:
                self._page = self._make_page()
            self._jobs += 1
            PAGE.pack_into(self._page, 0, self._jobs, self._first_at)

    def _make_page(self):
        self._first_at = time.monotonic()
        descriptor = os.open(Path(os.environ["COUNTS"]) / str(os.getpid()), os.O_RDWR | os.O_CREAT)
        os.ftruncate(descriptor, PAGE.size)
        page = mmap.mmap(descriptor, PAGE.size)
        os.close(descriptor)
        return page


count = Counter()
