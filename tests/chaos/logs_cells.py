"""The lane of live output is struck while a command prints: who follows it misses nothing, and no work waits for it."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, TypeAlias

from orqestra.client import Chunk, OutputStream
from tests.chaos.cell import Cell, Stage
from tests.chaos.kill_cells import ONE
from tests.chaos.nodes import Worker

# One each fiftieth of a second or less: the command outlasts all that is done to its lane.
LINES: Final = 600
# What has to be seen anew after each strike, and how many other jobs have to end meanwhile.
SEEN_BYTES: Final = 50
ENDED_JOBS: Final = 10
OF_WORK_AND_LANE: Final = 2

Strike: TypeAlias = Callable[[Stage, Worker], Coroutine[Any, Any, None]]


async def lane(stage: Stage, strike: Strike, *, times: int, keeps_session: bool) -> None:
    """One follows a command while its lane is struck. `keeps_session`: its worker opens no other meanwhile."""
    job_id = await stage.clients.submit("lines", str(LINES))
    stage.aside.add(job_id)
    await stage.started(job_id)
    worker = await stage.worker_of(job_id)
    before = await _sessions(stage, worker)
    seen: list[Chunk] = []
    following = asyncio.create_task(_follow(stage, job_id, seen))
    await _more(stage, seen)
    for _ in range(times):
        await strike(stage, worker)
        await _more(stage, seen)
        took = round(time.time() - stage.fault_at, 2)
        stage.figures["seen_again_s"] = max(took, stage.figures.get("seen_again_s", 0.0))
        await stage.more_ended(ENDED_JOBS)
    ended = f"end {job_id} " in stage.cluster.journal.read_text()
    stage.demand(not ended, "the command ended before its lane had been struck so often")
    opened = await _sessions(stage, worker) - before
    stage.demand((opened == 0) == keeps_session, f"{opened} sessions were opened by the worker meanwhile")
    await stage.ended(job_id)
    await following
    _judge(stage, job_id, seen)
    await stage.recovered()


async def cut(stage: Stage, worker: Worker) -> None:
    """The connection of the lane, which was made last, is reset; that of the work goes on."""
    (proxy,) = worker.link.proxies
    await stage.until(lambda: proxy.connected == OF_WORK_AND_LANE)
    proxy.reset_newest()
    stage.fault()


async def kill_server(stage: Stage, _: Worker) -> None:
    """The server is killed and started again."""
    (server,) = stage.cluster.servers
    await server.kill()
    stage.fault()
    server.start()
    await stage.cluster.whole()
    stage.healed()


async def _follow(stage: Stage, job_id: int, seen: list[Chunk]) -> None:
    async for chunk in stage.cluster.client.output(job_id, follow=True):
        seen.append(chunk)


async def _more(stage: Stage, seen: list[Chunk]) -> None:
    """Return once more has been seen."""
    wanted = _size(seen) + SEEN_BYTES
    await stage.until(lambda: _size(seen) >= wanted)


async def _sessions(stage: Stage, worker: Worker) -> int:
    rows = await stage.fetch("SELECT count(*) AS n FROM sessions WHERE name = $1", worker.name)
    return int(rows[0]["n"])


def _size(seen: list[Chunk]) -> int:
    return sum(len(chunk.data) for chunk in seen)


def _judge(stage: Stage, job_id: int, seen: list[Chunk]) -> None:
    """Note what was lost, doubled or of another attempt."""
    stage.figures["chunks"] = len(seen)
    position = 0
    for chunk in seen:
        stage.demand(chunk.offset == position, f"a piece at {chunk.offset} followed what ended at {position}")
        position = chunk.offset + len(chunk.data)
    expected = "".join((f"{job_id} 1 1\n", *(f"line {number}\n" for number in range(1, LINES + 1))))
    stage.demand(b"".join(chunk.data for chunk in seen) == expected.encode(), "what was seen is not what was written")
    kinds = {(chunk.fence, chunk.stream) for chunk in seen}
    stage.demand(kinds == {(1, OutputStream.STDOUT)}, f"seen were {kinds}")


def logs_cells() -> list[Cell]:
    """Return the cells of the table."""
    return [
        Cell(
            point="live output cut, again and again",
            victim="lane of logs",
            act=partial(lane, strike=cut, times=3, keeps_session=True),
            bound_seconds=3.0,
            shape=ONE,
            subset=True,
        ),
        Cell(
            point="live output, killed and started again",
            victim="server",
            act=partial(lane, strike=kill_server, times=1, keeps_session=False),
            bound_seconds=3.0,
            shape=ONE,
        ),
    ]
