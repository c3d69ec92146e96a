"""Direct match over a way to Postgres that is cut: what was stored is found and sent, or its stream ends."""

import pytest

from orqestra.model.errors import MaybeStored, StorageUnavailable
from tests.support.direct import SLOTS, Scene
from tests.support.engine import engine_on
from tests.support.lossy_postgres import LossyPostgres


@pytest.mark.parametrize("after_commit", [True, False], ids=["after the commit", "before it"])
@pytest.mark.parametrize("key", ["key", None])
async def test_what_was_stored_without_an_answer_is_found_and_sent(
    lossy: LossyPostgres, *, after_commit: bool, key: str | None
) -> None:
    async with engine_on(lossy.url) as engine:
        scene = Scene(engine)
        session = await scene.begin()
        lossy.lose("INSERT INTO jobs", after_commit=after_commit)

        [answer] = await engine.take_in([scene.job(key=key)])

        assert lossy.cuts == 1
        assert scene.stream.ended == []
        stored = [row["id"] for row in await engine.sql("SELECT id FROM jobs")]
        # What was stored whole needs no key to be known.
        assert (answer == stored) if key or after_commit else isinstance(answer, MaybeStored)
        # The second try of one with a key, which is made where the first one has stored nothing, comes behind a look at
        # the outbox.
        assert scene.assigned == (stored if after_commit else [])
        assert scene.matcher.free(session.id) == SLOTS - len(scene.assigned)
        assert {attempt.job_id for attempt in session.outstanding} == set(scene.assigned)
        await scene.relay()
        scene.found_empty(scene.lane)
        assert await scene.submit(scene.job()) == scene.assigned[-1:]


async def test_a_stream_ends_if_jobs_may_run_on_it_and_nobody_can_know(lossy: LossyPostgres) -> None:
    async with engine_on(lossy.url) as engine:
        scene = Scene(engine)
        session = await scene.begin()
        lossy.lose("INSERT INTO jobs", after_commit=True, for_good=True)

        with pytest.raises(MaybeStored):
            await scene.submit(scene.job())

        assert engine.sessions.get(session.id) is None
        assert len(scene.stream.ended) == 1
        assert scene.assigned == []
        await lossy.open()


async def test_jobs_that_are_stored_and_whose_ids_are_hidden_are_sent(lossy: LossyPostgres) -> None:
    async with engine_on(lossy.url) as engine:
        scene = Scene(engine)
        await scene.begin()
        known = scene.job(key="key")
        [first] = await scene.submit(known)
        lossy.lose("FROM jobs WHERE idempotency_key", after_commit=False)

        [unknown, ids] = await engine.take_in([scene.job()], [known])

        assert isinstance(unknown, MaybeStored)
        assert ids == [first]
        assert scene.stream.ended == []
        [second] = [row["id"] for row in await engine.sql("SELECT id FROM jobs WHERE id <> $1", first)]
        assert scene.assigned == [first, second]


async def test_a_stream_goes_on_if_surely_nothing_was_stored(lossy: LossyPostgres) -> None:
    async with engine_on(lossy.url) as engine:
        scene = Scene(engine)
        session = await scene.begin()
        await lossy.close()

        with pytest.raises(StorageUnavailable):
            await scene.submit(scene.job())

        assert scene.stream.ended == []
        assert scene.matcher.free(session.id) == SLOTS
        await lossy.open()
