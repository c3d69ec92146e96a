"""Direct match: what is stored as running at once, for whom, and that it passes nobody."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from orqestra.model.errors import OrqestraError
from orqestra.model.report import AttemptRef
from orqestra.store.submitting import Batch, PlacedJob
from tests.support.direct import SLOTS, BrokenStream, Scene
from tests.support.engine import Engine, noop

pytestmark = pytest.mark.asyncio(loop_scope="module")


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
    # And is sent first, since it may have to wait for a slot at the worker.
    assert scene.assigned == [ids[3], ids[1], ids[4]]
    assert states == {9: ("running", 1), 5: ("running", 1), 1: ("pending", 0)}


async def test_jobs_of_one_priority_come_in_their_order_whatever_they_share(engine: Engine) -> None:
    scene = Scene(engine)
    await scene.begin()
    other = await scene.lane_of(f"{scene.queue}/other")
    scene.found_empty(scene.lane, other)
    queues = (scene.queue, f"{scene.queue}/other", scene.queue, f"{scene.queue}/other")

    ids = await scene.submit(*(noop(queue=queue, timeout_ms=at) for at, queue in enumerate(queues)))

    assert sorted(scene.assigned) == ids[:SLOTS]
    assert {job.attempt.job_id: job.timeout_ms for job in scene.stream.assigned} == {
        job_id: at for at, job_id in enumerate(ids[:SLOTS])
    }


async def _woken(scene: Scene) -> None:
    scene.matcher.wake([scene.lane])


async def _partial(scene: Scene) -> None:
    scene.matcher.found_partial([scene.lane])


async def _the_take_left_some(scene: Scene) -> None:
    scene.matcher.suspect_all()
    scene.found_empty()


async def _a_claim_failed(scene: Scene) -> None:
    scene.matcher.suspect_all(filled=True)


async def _another_lane_waits(scene: Scene) -> None:
    await scene.lane_of(f"{scene.queue}/other")


async def _a_hint_is_on_its_way(scene: Scene) -> None:
    await scene.submit(noop(queue="elsewhere"))


async def _no_slot_is_free(scene: Scene) -> None:
    await scene.submit(*[scene.job()] * SLOTS)
    scene.stream.assigned.clear()


@pytest.mark.parametrize(
    "waits",
    [
        *(_woken, _partial, _the_take_left_some, _a_claim_failed),
        *(_another_lane_waits, _a_hint_is_on_its_way, _no_slot_is_free),
    ],
)
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


async def test_a_job_that_postgres_refuses_costs_nobody_else_anything(engine: Engine) -> None:
    scene = Scene(engine)
    session = await scene.begin()

    refused, ids = await engine.take_in([scene.job(tags=("no\0text",))], [scene.job()])

    assert isinstance(refused, OrqestraError)
    assert scene.assigned == ids
    assert await scene.states(ids) == [("running", 1)]
    assert scene.matcher.free(session.id) == SLOTS - 1
    assert scene.stream.ended == []


@pytest.mark.parametrize("callers", [1, 2])
async def test_a_new_key_that_comes_twice_is_one_job_for_one_worker(engine: Engine, callers: int) -> None:
    scene = Scene(engine)
    session = await scene.begin()
    twice = [scene.job(key=str(uuid4()))] * 2
    calls = [twice] if callers == 1 else [twice[:1], twice[1:]]

    answers = await engine.take_in(*calls)

    [job_id] = {job_id for ids in answers for job_id in ids}
    assert scene.assigned == [job_id]
    assert await scene.states([job_id]) == [("running", 1)]
    assert scene.matcher.free(session.id) == SLOTS - 1


async def test_a_server_that_rests_gives_nothing_to_anybody(engine: Engine) -> None:
    scene = Scene(engine)
    session = await scene.begin()
    try:
        engine.sessions.rest()
        assert scene.matcher.free(session.id) == 0

        ids = await scene.submit(scene.job())

        assert scene.assigned == []
        assert await scene.states(ids) == [("pending", 0)]
        engine.sessions.set_slots(session, SLOTS + 1)
        late = Scene(engine)
        assert scene.matcher.free(session.id) == scene.matcher.free((await late.begin()).id) == 0
    finally:
        # The engine is that of all tests here.
        engine.sessions._resting = False


async def test_jobs_that_cannot_be_sent_go_back_with_their_stream(engine: Engine) -> None:
    scene = Scene(engine)
    scene.stream = BrokenStream()
    session = await scene.begin()

    [job_id] = await scene.submit(scene.job())

    # It is stored, whatever becomes of the stream: the next Hello does not name it.
    assert await scene.states([job_id]) == [("running", 1)]
    assert engine.sessions.get(session.id) is None
    assert len(scene.stream.ended) == 1


async def test_a_cancel_that_came_before_the_assignment_is_told_behind_it(engine: Engine) -> None:
    scene = Scene(engine)
    session = await scene.begin()
    batch = Batch.of([PlacedJob(spec=scene.job(), lane_id=scene.lane)])
    matching = engine.direct.matching()
    async with engine.direct.storing(matching, engine.database.connection()) as statements:
        stored = await matching.submit(statements, batch)
        [job_id] = stored.ids
        assert job_id is not None
        attempt = AttemptRef(job_id, 1, matching.direct.tokens[session.id])
        await engine.cancels.cancel([job_id])
        assert scene.stream.cancelled == [attempt]
        assert scene.assigned == []

    assert scene.assigned == [job_id]
    assert scene.stream.cancelled == [attempt] * 2


async def test_nobody_passes_what_is_just_being_stored_to_wait(engine: Engine) -> None:
    scene = Scene(engine)
    session = await scene.begin()
    places = [PlacedJob(spec=scene.job(), lane_id=scene.lane)] * (SLOTS + 1)
    matching = engine.direct.matching()
    async with engine.direct.storing(matching, engine.database.connection()) as statements:
        await matching.submit(statements, Batch.of(places))
        # A slot falls free before the relay has heard of the one that waits.
        scene.matcher.release([session.id])

        [late] = await scene.submit(scene.job())

    assert await scene.states([late]) == [("pending", 0)]
    assert len(scene.assigned) == SLOTS
