"""What to do with a backend whose answer was lost: end it, so that what it did can be read once and for all."""

import asyncio
from typing import Final

from orqestra.store.connections import Backend
from orqestra.store.database import Database

# A backend ends within milliseconds, unless its disk or its machine hangs. Postgres' own wait for that
# looks only every 100 ms, and nothing is dispatched meanwhile.
LOOKS: Final = 40
LOOK_FIRST_SECONDS: Final = 0.002
LOOK_LAST_SECONDS: Final = 0.05


async def end_backend(database: Database, backend: Backend) -> bool:
    """End a backend of ours; True: it is gone for certain, and what it has not committed by now it never will.

    Also one that was gone before, as after a crash or restart of Postgres. Never ends another that got its pid.
    Raises Unavailable if Postgres does not answer.
    """
    for look in range(LOOKS):
        if not await database.insist("end_backend", pid=backend.pid, started_at=backend.started_at):
            return True
        await asyncio.sleep(min(LOOK_FIRST_SECONDS * 2.0**look, LOOK_LAST_SECONDS))
    return False
