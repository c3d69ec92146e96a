"""Kill points and victims: each process ended at each named moment in the life of a job.

| victim | what happens to it |
|---|---|
| S | the server is killed and started again a second later |
| S2 | one of two servers is killed and stays away |
| W | the worker's daemon is killed and started again |
| SV | the worker's supervisor is killed, and its commands with it |
| WX | daemon, supervisor, commands and the state directory are gone: a lost host |
| PG | Postgres is killed with all its backends and started again |
| R | Redis is killed and started again, empty |
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeAlias

from orqestra.failpoint import Point
from tests.chaos.cell import Act, Cell, Stage
from tests.chaos.control import Puppet, first_hit, halt
from tests.chaos.gates import ClosedGate, Gate
from tests.chaos.nodes import Node, Server, Shape, Worker
from tests.chaos.settings import SUPERVISOR

RESTART_SECONDS: Final = 1.0
ONE: Final = Shape(servers=1, workers=2)
TWO: Final = Shape(servers=2, workers=2)
BACKLOG: Final = 200
# A point is passed up to so many times before it is the one.
PASSES: Final = 5
VICTIMS: Final = ("S", "S2", "W", "SV", "WX", "PG", "R")

Starts: TypeAlias = tuple[int, int]
ONCE: Final = (1, 1)
TWICE: Final = (2, 2)
# Whether the first start had ended and been noted before the kill is left to chance.
MAYBE_TWICE: Final = (1, 2)

# Seconds from the heal; for S2 and WX, of which nothing comes back, from the kill.
BOUNDS: Final[Mapping[str, float]] = {
    "S": 3.0,
    "S2": 3.0,
    "W": 2.0,
    "SV": 2.0,
    "WX": ONE.lease_seconds + 2.0,
    "PG": 5.0,
    "R": 3.0,
}


@dataclass(frozen=True, kw_only=True)
class KillPoint:
    """A moment, how a job gets there, and how often that job may be started then, victim by victim."""

    number: str
    at: Point | Gate | None
    """None: a command runs."""
    provoke: Act
    victims: str = "S S2 PG R"
    starts: Mapping[str, Starts] = field(default_factory=dict)
    """Once, where nothing is said."""
    subset: str = ""

    @property
    def name(self) -> str:
        """As it stands in the table."""
        return f"{self.number} {self.at or 'worker.running'}"


async def submit_one(stage: Stage) -> None:
    """Submit a job that takes a moment."""
    await stage.clients.submit("sleep", "0.05")


async def submit_to_match(stage: Stage) -> None:
    """Submit a job where a worker is: no other server matches directly, and after a kill all may be at one.

    What the background submits at that moment has keys, and is submitted again.
    """
    cluster = stage.cluster
    if len(cluster.servers) > 1:
        cluster.lead_client_to(await stage.server_of(cluster.workers[0]))
    await submit_one(stage)


async def submit_soon(stage: Stage) -> None:
    """Submit a job that is due a moment later: it goes by way of Redis and a claim, not directly."""
    await stage.clients.submit("sleep", "0.05", delay_ms=1)


async def submit_delayed(stage: Stage) -> None:
    """Submit a job that is due a little later."""
    await stage.clients.submit(delay_ms=400)


async def run_workflow(stage: Stage) -> None:
    """Start a run of three steps."""
    await stage.clients.trigger()


async def run_on(stage: Stage) -> None:
    """Have a command run until the fault is over."""
    await stage.held_job()


async def cancel_one(stage: Stage) -> None:
    """Cancel a job that runs."""
    await stage.clients.cancel(await stage.held_job())


async def lose_a_host(stage: Stage) -> None:
    """Have a job run on a host that is gone then: its lease runs out."""
    job_id = await stage.held_job()
    await (await stage.worker_of(job_id)).kill_tree()


async def flush_redis(stage: Stage) -> None:
    """Let Redis forget a backlog."""
    await asyncio.gather(*(stage.clients.submit("sleep", "0.05") for _ in range(BACKLOG)))
    async with stage.cluster.redis_client() as redis:
        await redis.flushall()


WITH_WORKERS: Final = " ".join(VICTIMS)
POINTS: Final = (
    KillPoint(number="K0", at=Point.SUBMIT_BEFORE_TX, provoke=submit_one, subset="S"),
    KillPoint(number="K1", at=Gate.SUBMIT, provoke=submit_one, subset="S PG"),
    KillPoint(number="K2", at=Point.SUBMIT_BEFORE_REPLY, provoke=submit_one, subset="S2"),
    KillPoint(number="K2", at=Point.DIRECT_STORED, provoke=submit_to_match, victims=WITH_WORKERS, subset="S W"),
    KillPoint(number="K3", at=Point.RELAY_READ, provoke=submit_soon),
    KillPoint(number="K4", at=Point.RELAY_PUSHED, provoke=submit_soon, subset="R"),
    KillPoint(number="K5", at=Point.TAKEN, provoke=submit_soon, subset="S"),
    KillPoint(number="K6", at=Gate.CLAIM, provoke=submit_soon, subset="PG"),
    KillPoint(number="K7", at=Point.CLAIMED, provoke=submit_soon, victims=WITH_WORKERS, subset="S S2"),
    KillPoint(
        number="K8",
        at=Point.SENT,
        provoke=submit_one,
        victims=WITH_WORKERS,
        # The server halts, the worker does not: its command may have begun.
        starts={"SV": MAYBE_TWICE, "WX": MAYBE_TWICE},
    ),
    KillPoint(number="K8", at=Point.RECEIVED, provoke=submit_one, victims=WITH_WORKERS, subset="W"),
    KillPoint(number="K9", at=Point.ACCEPTED, provoke=submit_one, victims=WITH_WORKERS),
    KillPoint(
        number="K10",
        at=None,
        provoke=run_on,
        victims=WITH_WORKERS,
        starts={"SV": TWICE, "WX": TWICE},
        subset="S W SV WX PG",
    ),
    KillPoint(
        number="K11",
        at=Point.EXITED,
        provoke=submit_one,
        victims=WITH_WORKERS,
        starts={"SV": TWICE, "WX": TWICE},
    ),
    KillPoint(
        number="K12", at=Point.SPOOLED, provoke=submit_one, victims=WITH_WORKERS, starts={"WX": TWICE}, subset="W"
    ),
    KillPoint(number="K13", at=Gate.RESULT, provoke=submit_one, victims=WITH_WORKERS, subset="S2"),
    KillPoint(number="K14", at=Point.SETTLED, provoke=submit_one, victims=WITH_WORKERS, subset="S"),
    KillPoint(number="K15", at=Point.ACKNOWLEDGED, provoke=submit_one, victims=WITH_WORKERS, subset="W"),
    KillPoint(number="K16", at=Point.PROMOTED, provoke=submit_delayed, subset="S"),
    KillPoint(
        number="K17",
        at=Point.ORPHANS_FOUND,
        provoke=lose_a_host,
        victims="S S2 PG",
        starts={"S": TWICE, "S2": TWICE, "PG": TWICE},
    ),
    KillPoint(number="K18", at=Point.CANCELLED, provoke=cancel_one, victims=WITH_WORKERS, subset="S"),
    KillPoint(number="K19", at=Gate.ADVANCE, provoke=run_workflow, subset="S2 PG"),
    KillPoint(number="K20", at=Point.REFILLING, provoke=flush_redis, subset="R"),
)


def kill_cells() -> list[Cell]:
    """Return the cells of the table, victim by victim."""
    return [
        Cell(
            point=point.name,
            victim=victim,
            act=partial(_strike, point=point, victim=victim),
            bound_seconds=BOUNDS[victim],
            shape=TWO if victim == "S2" else ONE,
            # Alone, where the table tells exactly how often the job at the point may start.
            quiet=victim in ("W", "SV", "WX") or point.provoke is lose_a_host,
            subset=victim in point.subset.split(),
        )
        for victim in VICTIMS
        for point in POINTS
        if victim in point.victims.split()
    ]


async def _strike(stage: Stage, *, point: KillPoint, victim: str) -> None:
    async with _halted(stage, point) as halted:
        provoking = asyncio.create_task(point.provoke(stage))
        try:
            node = await halted.reached(provoking)
            if stage.cell.quiet:
                stage.starts[await stage.last_job()] = point.starts.get(victim, ONCE)
            await _end(stage, victim, node, halted)
            stage.release()
            await provoking
            await stage.recovered()
        finally:
            provoking.cancel()
            await asyncio.gather(provoking, return_exceptions=True)


async def _end(stage: Stage, victim: str, node: Node, halted: "_Halted") -> None:
    """End the victim while `node` halts, let the others go on, and bring back what comes back."""
    cluster = stage.cluster
    worker = node if isinstance(node, Worker) else await stage.worker_of(await stage.last_job())
    server = node if isinstance(node, Server) else await stage.server_of(worker)
    stage.fault()
    match victim:
        case "S":
            await server.kill()
            await halted.release()
            await asyncio.sleep(RESTART_SECONDS)
            server.start()
            stage.healed()
        case "S2":
            await server.kill()
            await halted.release()
        case "W":
            await worker.kill()
            await halted.release()
            worker.start()
            stage.healed()
        case "SV":
            worker.kill_supervisor()
            await halted.release()
            stage.healed()
        case "WX":
            await worker.kill_tree()
            shutil.rmtree(cluster.folder / worker.name)
            await halted.release()
        case "PG":
            await cluster.kill_postgres()
            await halted.release()
            await cluster.postgres.start()
            stage.healed()
        case "R":
            await cluster.kill_redis()
            await halted.release()
            await cluster.redis.start()
            stage.healed()
        case _:
            raise AssertionError(victim)


class _Halted:
    """A process, or a transaction of one, that stands still at a kill point."""

    def __init__(self, stage: Stage, point: KillPoint, gate: ClosedGate | None) -> None:
        self._stage = stage
        self._point = point
        self._gate = gate
        self._nodes: dict[str, Node] = {node.name: node for node in stage.cluster.nodes}
        self._release: Callable[[], None] | None = None

    async def reached(self, provoking: "asyncio.Task[None]") -> Node:
        """Return whose process it is, once it stands still."""
        match self._point.at:
            case None:
                await provoking
                return await self._stage.worker_of(await self._stage.last_job())
            case Gate():
                assert self._gate is not None
                return self._nodes[await self._gate.visitor()]
            case Point() as point:
                puppet = await first_hit(await _puppets(self._stage), point)
                self._release = puppet.go
                return self._nodes[puppet.name.removesuffix(SUPERVISOR)]

    async def release(self) -> None:
        """Let it go on, if it still lives. A transaction of a killed server is either committed or not."""
        if self._release is not None:
            self._release()
        if self._gate is not None:
            await self._gate.open(commit=self._stage.chance.random() < 0.5)


@asynccontextmanager
async def _halted(stage: Stage, point: KillPoint) -> AsyncIterator[_Halted]:
    """Have whoever gets to the point first stand still there."""
    match point.at:
        case None:
            yield _Halted(stage, point, None)
        case Gate() as gate:
            async with ClosedGate(stage.cluster.db_url, gate) as closed:
                yield _Halted(stage, point, closed)
        case Point() as at:
            puppets = await _puppets(stage)
            # In company any job of the background may be the one, the first or a later one.
            in_company = point.provoke in (submit_one, submit_to_match) and not stage.cell.quiet
            await halt(puppets, at, stage.chance.randrange(PASSES) if in_company else 0)
            try:
                yield _Halted(stage, point, None)
            finally:
                for puppet in puppets:
                    await puppet.disarm(at)
                    puppet.go()


async def _puppets(stage: Stage) -> list[Puppet]:
    """Return the strings of all processes that live, supervisors too."""
    cluster = stage.cluster
    nodes = [await node.puppet() for node in cluster.nodes if node.running]
    return [*nodes, *[await worker.supervisor() for worker in cluster.workers if worker.running]]
