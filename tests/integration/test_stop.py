"""A stop that goes wrong is an error of that server, and of nothing that comes after it in the same process."""

import asyncio
import os

import pytest

from orqestra.app import LEASE_TIMEOUT_SECONDS, Server
from orqestra.clock import SystemClock
from orqestra.settings import Settings
from orqestra.store.database import Database


class Stumbling(Server):
    """Stops, and raises at the end of it."""

    async def _stop_in_order(self, deadline: float) -> None:
        await super()._stop_in_order(deadline)
        raise OSError("stumbled")


async def test_the_last_resort_is_disarmed_after_a_stop_that_raises(server_settings: Settings) -> None:
    """It would end the process seconds later."""
    database = await Database.connect(server_settings.db_url, connections=server_settings.db_connections)
    leases = await Database.connect(server_settings.db_url, connections=1, timeout_seconds=LEASE_TIMEOUT_SECONDS)
    server = Stumbling(server_settings, SystemClock(), (database, leases))
    run = asyncio.create_task(server.run())
    await server.serving.wait()

    server.stop()
    with pytest.raises(OSError, match="stumbled"):
        await run

    # The timers of a loop are no public matter; to wait for this one would end the run of the tests.
    timers = [handle for handle in vars(asyncio.get_running_loop())["_scheduled"] if not handle.cancelled()]
    assert os._exit not in [handle._callback for handle in timers]
