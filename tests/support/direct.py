"""A worker with free slots for whom nothing waits: what direct match looks for."""

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from orqestra.engine.hellos import Greeting
from orqestra.engine.sessions import Session
from orqestra.model.errors import OrqestraError
from orqestra.model.job import JobSpec
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
