"""A thread of another process that stands still, as one does whose system call does not return."""

import ctypes
import os
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from tests.support.waiting import until

SEIZE: Final = 0x4206
INTERRUPT: Final = 0x4207
DETACH: Final = 17
# Threads too, not only processes.
ALL: Final = 0x40000000


class FrozenThread:
    """Stands still in the block. To be used in one thread only: a thread is traced by a thread."""

    def __init__(self, pid: int, name: str) -> None:
        tasks = Path(f"/proc/{pid}/task").iterdir()
        (self._id,) = [int(task.name) for task in tasks if (task / "comm").read_text().strip() == name]

    def __enter__(self) -> Self:
        self._trace(SEIZE)
        self._trace(INTERRUPT)
        os.waitpid(self._id, ALL)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._trace(DETACH)
        except ProcessLookupError:
            # Its process has ended, which is not told to anybody before this is taken.
            with suppress(ChildProcessError):
                os.waitpid(self._id, ALL | os.WNOHANG)

    async def ended(self) -> None:
        """Return when its process has ended; TimeoutError if it does not."""
        await until(lambda: os.waitpid(self._id, ALL | os.WNOHANG) != (0, 0))

    def _trace(self, request: int) -> None:
        ptrace = ctypes.CDLL(None, use_errno=True).ptrace
        ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
        if ptrace(request, self._id, None, None) == -1:
            raise OSError(ctypes.get_errno(), "ptrace")
