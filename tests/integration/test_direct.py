"""Direct match: what is stored as running at once, for whom, and that it passes nobody."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from orqestra.engine.direct import DirectMatch
from orqestra.engine.hellos import Greeting
from orqestra.engine.sessions import Session
from orqestra.model.errors import OrqestraError, OutcomeUnknown, StorageUnavailable
from orqestra.model.job import JobSpec
from orqestra.model.report import AttemptRef
from orqestra.store.submitting import Batch, PlacedJob, submit_jobs
from orqestra.v1.worker_pb2 import Assign, Assignment
from tests.support.engine import SERVER_ID, Engine, Peer, noop

pytestmark = pytest.mark.asyncio(loop_scope="module")

SLOTS = 3


class Stream(Peer):
    """A stream that keeps what it is assigned."""

    def __init__(self) -> None:
        super().__init__()
        self.assigned: list[Assignment] = []

    def assign(self, jobs: bytes) -> None:
        self.assigned += Assign.FromString(jobs).jobs


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


async def test_a_free_worker_gets_a_new_job_without_a_hint(engine: Engine) -> None:
    scene = Scene(engine)
    session = await scene.begin()
    await engine.hints()

    [job_id] = await scene.submit(scene.job(payload=b'{"x":1}', timeout_ms=7, grace_ms=8))

    row = await engine.job(job_id)
    assert (row["state"], row["fence"], row["attempt"], row["session_id"]) == ("running", 1, 0, session.id)
    assert row["started_at"] >= row["created_at"]
    assert row["worker_id"] == session.worker_id
    [job] = scene.stream.assigned
    assert (job.attempt.job_id, job.attempt.fence, job.attempt.token) == (job_id, 1, row["token"])
    assert (job.type, job.payload, job.attempt_number) == ("noop", b'{"x":1}', 1)
    assert (job.timeout_ms, job.grace_ms) == (7, 8)
    assert await engine.hints() == {}
    assert session.outstanding == {AttemptRef(job_id, 1, row["token"])}
    assert scene.matcher.free(session.id) == SLOTS - 1


async def test_what_finds_no_credit_goes_the_usual_way_behind_it(engine: Engine) -> None:
    scene = Scene(engine)
    session = await scene.begin()
    await engine.hints()

    ids = await scene.submit(*[scene.job(payload=b"%d" % number) for number in range(SLOTS + 2)])

    assert scene.assigned == ids[:SLOTS]
    assert [job.payload for job in scene.stream.assigned] == [b"0", b"1", b"2"]
    assert await scene.states(ids) == [("running", 1)] * SLOTS + [("pending", 0)] * 2
    assert await engine.hints() == dict.fromkeys(ids[SLOTS:], 0)
    assert scene.matcher.free(session.id) == 0


async def test_the_higher_priority_comes_first(engine: Engine) -> None:
    scene = Scene(engine)
    await scene.begin()

    ids = await scene.submit(*(scene.job(priority=priority) for priority in (1, 5, 1, 9, 5)))

    states = dict(zip((1, 5, 1, 9, 5), await scene.states(ids), strict=True))
    assert sorted(scene.assigned) == [ids[1], ids[3], ids[4]]
    assert states == {9: ("running", 1), 5: ("running", 1), 1: ("pending", 0)}


async def _woken(scene: Scene) -> None:
    scene.matcher.wake([scene.lane])


async def _partial(scene: Scene) -> None:
    scene.matcher.found_partial([scene.lane])


async def _another_lane_waits(scene: Scene) -> None:
    await scene.lane_of(f"{scene.queue}/other")


async def _a_hint_is_on_its_way(scene: Scene) -> None:
    await scene.submit(noop(queue="elsewhere"))


async def _no_slot_is_free(scene: Scene) -> None:
    await scene.submit(*[scene.job()] * SLOTS)
    scene.stream.assigned.clear()


@pytest.mark.parametrize("waits", [_woken, _partial, _another_lane_waits, _a_hint_is_on_its_way, _no_slot_is_free])
async def test_it_passes_nobody(engine: Engine, waits: Any) -> None:
    scene = Scene(engine)
    await scene.begin()
    await waits(scene)
    await engine.hints()

    [job_id] = await scene.submit(scene.job())

    assert scene.assigned == []
    assert await scene.states([job_id]) == [("pending", 0)]
    assert await engine.hints() == {job_id: 0}


async def test_once_nothing_waits_any_more_it_matches_again(engine: Engine) -> None:
    scene = Scene(engine)
    await scene.begin()
    for waits in (_woken, _partial):
        await waits(scene)
        scene.matcher.wake([scene.lane])
        scene.found_empty(scene.lane)

    ids = await scene.submit(scene.job())

    assert scene.assigned == ids


async def test_what_is_not_due_or_cannot_be_told_at_once_waits(engine: Engine) -> None:
    scene = Scene(engine)
    await scene.begin()
    past = datetime.now(UTC) - timedelta(seconds=1)

    ids = await scene.submit(scene.job(delay_ms=60_000), scene.job(at=past))

    assert scene.assigned == []
    assert await scene.states(ids) == [("pending", 0)] * 2


async def test_a_session_that_is_closed_elsewhere_gets_nothing(engine: Engine) -> None:
    scene = Scene(engine)
    session = await scene.begin()
    await engine.sql(
        "UPDATE sessions SET closed_at = clock_timestamp(), closed_reason = 'lapsed' WHERE id = $1", session.id
    )
    await engine.hints()

    [job_id] = await scene.submit(scene.job())

    assert scene.assigned == []
    assert await scene.states([job_id]) == [("pending", 0)]
    assert await engine.hints() == {job_id: 0}
    assert scene.matcher.free(session.id) == SLOTS


async def test_a_known_key_only_gives_the_credit_back(engine: Engine) -> None:
    scene = Scene(engine)
    session = await scene.begin()
    key = str(uuid4())
    [first] = await scene.submit(scene.job(key=key))
    scene.stream.assigned.clear()

    ids = await scene.submit(scene.job(key=key), scene.job(key=str(uuid4())))

    assert ids[0] == first
    assert scene.assigned == ids[1:]
    assert scene.matcher.free(session.id) == SLOTS - 2


async def test_a_job_that_postgres_refuses_costs_no_credit(engine: Engine) -> None:
    scene = Scene(engine)
    session = await scene.begin()

    with pytest.raises(OrqestraError, match="Postgres refuses"):
        await scene.submit(scene.job(tags=("no\0text",)))

    assert scene.matcher.free(session.id) == SLOTS
    assert scene.stream.ended == []


@pytest.mark.parametrize(("error", "ends"), [(StorageUnavailable("away"), False), (OutcomeUnknown("cut off"), True)])
async def test_a_stream_ends_only_if_jobs_may_run_on_it_unknown(
    engine: Engine, error: OrqestraError, ends: bool
) -> None:
    scene = Scene(engine)
    session = await scene.begin()
    match = DirectMatch(engine.core.clock, engine.sessions, engine.relay, engine.changed.extend)
    direct = match.match(Batch.of([PlacedJob(spec=scene.job(), lane_id=scene.lane)] * 2))
    assert scene.matcher.free(session.id) == SLOTS - 2

    match.undo(direct, error)

    assert bool(scene.stream.ended) is ends
    assert scene.matcher.free(session.id) == (0 if ends else SLOTS)


async def test_a_cancel_that_came_before_the_assignment_is_told_behind_it(engine: Engine) -> None:
    scene = Scene(engine)
    session = await scene.begin()
    match = DirectMatch(engine.core.clock, engine.sessions, engine.relay, engine.changed.extend)
    batch = Batch.of([PlacedJob(spec=scene.job(), lane_id=scene.lane)])
    direct = match.match(batch)
    async with engine.database.connection() as statements:
        stored = await submit_jobs(statements, batch, server_id=SERVER_ID, direct=direct)
    [job_id] = stored.ids
    assert job_id is not None
    await engine.cancels.cancel([job_id])
    assert scene.stream.cancelled == [AttemptRef(job_id, 1, direct.tokens[session.id])]

    match.send(direct, batch, stored)

    assert scene.assigned == [job_id]
    assert scene.stream.cancelled == [AttemptRef(job_id, 1, direct.tokens[session.id])] * 2
