"""Who is told what of live output when someone is slow, gone, or at another server."""

from collections.abc import Mapping
from typing import Any

import pytest

from orqestra.engine import live as module
from orqestra.engine.live import FOLLOWER_BYTES, Live
from orqestra.model.live import LiveChunk
from orqestra.queue.live import Wish
from tests.support.engine import Engine, Worker, ref
from tests.support.on_wire import claimed_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

PIECE = 65536


def chunk(row: Mapping[str, Any], offset: int, data: bytes) -> LiveChunk:
    return LiveChunk(job_id=row["id"], fence=row["fence"], stream=1, offset=offset, total=offset + len(data), data=data)


async def given(engine: Engine) -> tuple[Live, Worker, Mapping[str, Any]]:
    """A running job that nobody follows yet."""
    worker = await engine.connect()
    row = await engine.running(worker)
    engine.session(worker).give(claimed_of([row]))
    return Live(engine.core, engine.sessions), worker, row


async def test_a_flood_for_one_who_takes_nothing_is_stopped_and_begins_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0.0)
    live, worker, row = await given(engine)
    reached = {1: 0, 2: 0}
    with live.following(worker.session_id, ref(row), reached) as follower:
        # when more comes than may wait
        for number in range(FOLLOWER_BYTES // PIECE + 1):
            live.wrote(engine.session(worker), chunk(row, number * PIECE, bytes(PIECE)))
        live.catch_up(follower)
        stopped = list(worker.peer.follows)

        # and then it is taken
        while (piece := follower.take()) is not None:
            reached[1] = piece.offset + len(piece.data)
        live.catch_up(follower)

    assert stopped == [(ref(row), (0, 0), False), (ref(row), (0, 0), True)]
    assert worker.peer.follows[2:] == [(ref(row), (FOLLOWER_BYTES, 0), False), (ref(row), (0, 0), True)]


async def test_one_who_is_slow_takes_nothing_from_another(engine: Engine) -> None:
    live, worker, row = await given(engine)
    with (
        live.following(worker.session_id, ref(row), {1: 0, 2: 0}),
        live.following(worker.session_id, ref(row), {1: 0, 2: 0}) as quick,
    ):
        for number in range(3 * FOLLOWER_BYTES // PIECE):
            live.wrote(engine.session(worker), chunk(row, number * PIECE, bytes(PIECE)))
            piece = quick.take()
            assert piece is not None
            assert piece.offset == number * PIECE

        assert not any(stop for _, _, stop in worker.peer.follows)


async def test_a_server_that_asks_no_more_is_forgotten(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    live, worker, row = await given(engine)
    monkeypatch.setattr(module, "WISH_SECONDS", 0.0)
    wish = Wish(server="other", session_id=worker.session_id, job_id=row["id"], fence=row["fence"], offsets=(3, 4))

    live.asked(wish)
    await live.run_once()
    live.wrote(engine.session(worker), chunk(row, 3, b"x"))

    asked, *stopped = worker.peer.follows
    assert asked == (ref(row), (3, 4), False)
    assert stopped == [(ref(row), (0, 0), True)] * 2


async def test_what_is_not_here_is_not_promised(engine: Engine) -> None:
    live, worker, row = await given(engine)
    for about in ({"session_id": worker.session_id + 1}, {"fence": row["fence"] + 1}, {"job_id": row["id"] + 1}):
        known = {"session_id": worker.session_id, "job_id": row["id"], "fence": row["fence"]}
        live.asked(Wish(server="other", **known | about))

    assert worker.peer.follows == []
