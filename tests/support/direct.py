"""A worker with free slots for whom nothing waits: what direct match looks for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from orqestra.engine.catalog import Catalog
from orqestra.engine.hellos import Greeting
from orqestra.engine.sessions import Session
from orqestra.engine.workflows import Workflows
from orqestra.model.errors import OrqestraError
from orqestra.model.job import JobSpec
from orqestra.model.lifecycle import State
from orqestra.model.report import Report
from orqestra.store.database import Row
from orqestra.v1.worker_pb2 import Assign, Assignment
from tests.support.engine import Engine, Peer, noop

SLOTS = 3


class Stream(Peer):
    """A stream that keeps what it is assigned."""

    def __init__(self) -> None:
        super().__init__()
        self.assigned: list[Assignment] = []

    def assign(self, jobs: bytes) -> None:
        self.assigned += Assign.FromString(jobs).jobs


class BrokenStream(Stream):
    """A stream that cannot be assigned anything."""

    def assign(self, jobs: bytes) -> None:
        raise RuntimeError(f"{len(jobs)} bytes too many")


class Scene:
    """A worker with free slots on a queue of its own, whose lane the last take found empty."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.matcher = engine.sessions.matcher
        self.queue = f"direct-{uuid4()}"
        self.stream = Stream()

    async def begin(self) -> Session:
        """Connect the worker and let nothing wait."""
        self.engine.lanes.listen(self.matcher.set_lane)
        self.lane = await self.lane_of(self.queue)
        greeting = Greeting(
            worker_id=uuid4(),
            incarnation=uuid4(),
            number=1,
            name="direct",
            slots=SLOTS,
            queues=(self.queue, f"{self.queue}/other"),
            labels=(),
            held=(),
            finished=(),
        )
        opened = await self.engine.sessions.open(greeting, self.stream)
        assert opened is not None
        self.found_empty(self.lane)
        await self.relay()
        return opened.session

    async def lane_of(self, queue: str) -> int:
        return await self.engine.lanes.find(noop(queue=queue))

    async def relay(self) -> None:
        """Let what waits for Redis, which these tests do not have, be done with."""
        while not self.engine.relay.is_idle:
            await self.engine.relay.run_once()

    def found_empty(self, *lanes: int) -> None:
        """Take, and find nothing in these lanes."""
        self.matcher.demand(0)
        self.matcher.found_empty(lanes)

    def job(self, **about: Any) -> JobSpec:
        return noop(**{"queue": self.queue, **about})

    async def submit(self, *jobs: JobSpec) -> list[int]:
        [answer] = await self.engine.take_in(jobs)
        if isinstance(answer, OrqestraError):
            raise answer
        ids: list[int] = answer
        return ids

    async def states(self, ids: Sequence[int]) -> list[tuple[str, int]]:
        rows = [await self.engine.job(job_id) for job_id in ids]
        return [(row["state"], row["fence"]) for row in rows]

    @property
    def assigned(self) -> list[int]:
        return [job.attempt.job_id for job in self.stream.assigned]


class Runs(Scene):
    """A free worker, and a workflow of two steps that it serves."""

    async def ready(self, directory: Path) -> "Runs":
        (directory / "two.yaml").write_text(
            f"name: two\nsteps:\n{self._step('one')}    retries: 1\n{self._step('two')}    timeout: 7\n"
        )
        engine = self.engine
        catalog = Catalog(directory, engine.core.clock)
        self.workflows = Workflows(engine.core, catalog, engine.lanes, engine.relay, engine.direct)
        self.session = await self.begin()
        await engine.hints()
        return self

    def _step(self, key: str) -> str:
        return f"  - name: {key}\n    command: echo {key}\n    queue: {self.queue}\n"

    async def trigger(self) -> int:
        return await self.workflows.trigger("two", None)

    async def steps(self, run_id: int) -> list[Row]:
        return await self.engine.sql("SELECT * FROM jobs WHERE run_id = $1 ORDER BY id", run_id)

    async def steps_are(self, run_id: int) -> list[State]:
        return [step["state"] for step in await self.steps(run_id)]

    async def settle(self, *reports: Report) -> None:
        """Let attempts end, as far as the engine's own loops know."""
        self.matcher.release([self.session.id] * len(reports))
        self.engine.settlement.settle(reports)
        await self.engine.settlement.run_once()

    def told(self, keys: Sequence[str] = ("one", "two")) -> list[Assignment]:
        return [job for job in self.stream.assigned if job.step in keys]
