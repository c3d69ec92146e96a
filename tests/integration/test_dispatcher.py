"""When the dispatcher looks again by itself: whatever wakes are lost, each lane is looked at once a second."""

import pytest

from orqestra.engine.dispatcher import IDLE_SECONDS, Dispatcher
from orqestra.engine.refill import Refill
from tests.support.engine import Engine

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_step_for_something_else_does_not_put_off_the_look_at_every_lane(engine: Engine) -> None:
    began = engine.core.clock.monotonic()
    dispatcher = Dispatcher(engine.core, Refill(engine.core), engine.lanes, engine.sessions, engine.changed.extend)
    await dispatcher.run_once()

    delay_seconds = await dispatcher.run_once()

    # Strictly less than a second from here, by as much as the first step has taken.
    over = engine.core.clock.monotonic() - began
    assert delay_seconds is not None
    assert IDLE_SECONDS - over <= delay_seconds < IDLE_SECONDS
