"""What waits to be said on a Logs stream: which attempts to follow, and how much may be sent."""

import asyncio
from typing import Final

from orqestra.model.errors import InvalidInput
from orqestra.model.limits import MIB
from orqestra.v1.worker_pb2 import Credit, Follow, LogsDown

# On its way from one worker at a time. A loop that is busy elsewhere is not asked to take more than this.
WINDOW_BYTES: Final = MIB
# Given back in portions, so that not each piece costs an answer.
PORTION_BYTES: Final = WINDOW_BYTES // 4


class Lane:
    """The server's end of one Logs stream. All of it only queues, and is bounded by the attempts followed."""

    def __init__(self) -> None:
        self.ended = False
        self._follows: dict[tuple[int, int], Follow] = {}
        self._granted = 0
        self._owed = WINDOW_BYTES
        self._some = asyncio.Event()

    def follow(self, follow: Follow) -> None:
        """Queue a wish; one for the same attempt that still waits is joined with it."""
        name = (follow.attempt.job_id, follow.attempt.fence)
        waiting = self._follows.pop(name, None)
        if waiting is not None and not waiting.stop and not follow.stop:
            follow.stdout_offset = min(follow.stdout_offset, waiting.stdout_offset)
            follow.stderr_offset = min(follow.stderr_offset, waiting.stderr_offset)
        self._follows[name] = follow
        self._some.set()

    def took(self, size: int) -> None:
        """Count bytes that came, and give them back.

        Raises:
            InvalidInput: it was more than was granted.
        """
        if size > self._granted:
            raise InvalidInput("output.data", f"{size} bytes; {self._granted} were granted")
        self._granted -= size
        self._owed += size
        if self._owed >= PORTION_BYTES:
            self._some.set()

    def end(self) -> None:
        """Say nothing more."""
        self.ended = True
        self._some.set()

    async def next_message(self) -> LogsDown | None:
        """Return the next message, as soon as there is one; None once the stream is to end."""
        while not self.ended:
            if self._follows:
                return LogsDown(follow=self._follows.pop(next(iter(self._follows))))
            if self._owed >= PORTION_BYTES:
                size, self._owed = self._owed, 0
                self._granted += size
                return LogsDown(credit=Credit(bytes=size))
            self._some.clear()
            await self._some.wait()
        return None
