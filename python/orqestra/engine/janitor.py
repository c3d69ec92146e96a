"""Janitor: each minute deletes what nobody needs any more, in small batches, from Postgres and from Redis."""

from typing import Final

from orqestra.engine.core import Core
from orqestra.engine.lanes import Lanes
from orqestra.model.errors import HintsUnavailable
from orqestra.service import Service

MINUTE_SECONDS: Final = 60.0
BATCH_ROWS: Final = 1000


class Janitor(Service):
    """Old sessions and hints beyond the bound go; lanes made by other servers are learned at the latest here."""

    max_silence_seconds = 180.0

    def __init__(self, core: Core, lanes: Lanes) -> None:
        super().__init__("janitor", core.clock)
        self._database = core.database
        self._hints = core.hints
        self._link = core.link
        self._lanes = lanes

    async def run_once(self) -> float | None:
        """Delete one batch."""
        await self._database.fetch("delete_sessions", at_most=BATCH_ROWS)
        await self._lanes.load()
        await self._trim()
        return MINUTE_SECONDS

    async def _trim(self) -> None:
        """Let lanes that were filled while there were fewer of them keep no more than their share."""
        try:
            if self._link.up:
                await self._hints.trim(self._lanes.ids)
        except HintsUnavailable as error:
            self._link.lost(str(error))
