"""Watch: tells those who wait for a job that it may have changed. They read the job itself."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from orqestra.engine.core import Core
from orqestra.model.errors import HintsUnavailable
from orqestra.service import Service

# Between two messages to other servers, and while there are none: one that comes looks for itself meanwhile.
GATHER_SECONDS: Final = 0.01
ALONE_SECONDS: Final = 0.5
# What a lost message costs.
LOOK_SECONDS: Final = 1.0


class Watch(Service):
    """Wakes watchers here at once, and those of other servers by one message per batch."""

    def __init__(self, core: Core) -> None:
        super().__init__("watch", core.clock)
        self._hints = core.hints
        self._link = core.link
        self._watchers: dict[int, set[asyncio.Event]] = defaultdict(set)
        self._to_publish: list[int] = []

    @contextmanager
    def watching(self, job_id: int) -> Iterator[asyncio.Event]:
        """Lend an event that is set whenever the job may have changed; the watcher clears it."""
        event = asyncio.Event()
        self._watchers[job_id].add(event)
        try:
            yield event
        finally:
            self._watchers[job_id].discard(event)
            if not self._watchers[job_id]:
                del self._watchers[job_id]

    def changed(self, ids: Sequence[int]) -> None:
        """These jobs have changed here."""
        if ids:
            self.changed_elsewhere(ids)
            self._to_publish.extend(ids)
            self.wake()

    def changed_elsewhere(self, ids: Sequence[int]) -> None:
        """These jobs have changed, other servers know it already."""
        if not self._watchers:
            return
        for job_id in self._watchers.keys() & ids:
            for event in self._watchers[job_id]:
                event.set()

    async def run_once(self) -> float | None:
        """Publish what has changed here since the last time."""
        ids, self._to_publish = self._to_publish, []
        if ids and self._link.up:
            try:
                servers = await self._hints.publish_changed(ids)
            except HintsUnavailable as error:
                self._link.lost(str(error))
            else:
                # The first is told at once; what follows closely shares a message, which people do not notice.
                await self.pause(GATHER_SECONDS if servers > 1 else ALONE_SECONDS)
        return 0 if self._to_publish else None
