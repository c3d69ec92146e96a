"""Direct match over a way to Postgres that is cut: a stream ends if jobs may run on it that nobody sent."""

import pytest

from orqestra.model.errors import MaybeStored, StorageUnavailable
from tests.support.direct import SLOTS, Scene
from tests.support.engine import engine_on
from tests.support.lossy_postgres import LossyPostgres


@pytest.mark.parametrize("after_commit", [True, False], ids=["after the commit", "before it"])
async def test_a_stream_ends_if_jobs_may_run_on_it_unknown(lossy: LossyPostgres, *, after_commit: bool) -> None:
    async with engine_on(lossy.url) as engine:
        scene = Scene(engine)
        session = await scene.begin()
        lossy.lose("INSERT INTO jobs", after_commit=after_commit)

        [job_id] = await scene.submit(scene.job(key="key"))

        assert lossy.cuts == 1
        assert engine.sessions.get(session.id) is None
        assert len(scene.stream.ended) == 1
        assert scene.assigned == []
        # The second try found it stored for the session that had ended by then, or stored it.
        assert await scene.states([job_id]) == [("running", 1) if after_commit else ("pending", 0)]
        another = Scene(engine)
        await another.begin()
        assert await another.submit(another.job()) == another.assigned


async def test_jobs_that_are_stored_and_whose_ids_are_hidden_end_their_stream(lossy: LossyPostgres) -> None:
    async with engine_on(lossy.url) as engine:
        scene = Scene(engine)
        await scene.begin()
        known = scene.job(key="key")
        [first] = await scene.submit(known)
        lossy.lose("FROM jobs WHERE idempotency_key", after_commit=False)

        [unknown, ids] = await engine.take_in([scene.job()], [known])

        assert isinstance(unknown, MaybeStored)
        assert ids == [first]
        assert len(scene.stream.ended) == 1


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
