"""Steps of runs over a way to Postgres that is cut at the COMMIT: what was stored is found and sent, once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from orqestra.model.errors import MaybeStored
from orqestra.model.lifecycle import State
from orqestra.model.report import Verdict
from tests.support.direct import SLOTS, Runs
from tests.support.engine import engine_on, succeeded
from tests.support.lossy_postgres import LossyPostgres

CUTS = pytest.mark.parametrize("after_commit", [True, False], ids=["after the commit", "before it"])


@asynccontextmanager
async def runs_over(lossy: LossyPostgres, directory: Path) -> AsyncIterator[Runs]:
    """Yield a scene whose way to Postgres can be cut."""
    async with engine_on(lossy.url) as engine:
        yield await Runs(engine).ready(directory)


@CUTS
async def test_an_advance_whose_answer_is_lost_is_found_and_sent_once(
    lossy: LossyPostgres, tmp_path: Path, *, after_commit: bool
) -> None:
    async with runs_over(lossy, tmp_path) as runs:
        [one] = await runs.steps(run_id := await runs.trigger())
        lossy.lose("COMMIT", after_commit=after_commit, following="list_steps")

        await runs.settle(succeeded(one, stdout=b"kept"))

        assert lossy.cuts == 1
        # A look at the outbox comes before the second try, so that what it stores waits.
        state = State.RUNNING if after_commit else State.PENDING
        assert await runs.steps_are(run_id) == [State.COMPLETED, state]
        assert [job.previous_output for job in runs.told(["two"])] == ([b"kept"] if after_commit else [])
        assert runs.stream.ended == []
        assert runs.matcher.free(runs.session.id) == SLOTS - after_commit
        [verdict] = [verdict for _, verdict in runs.stream.answers]
        assert verdict in {Verdict.ACCEPTED, Verdict.DUPLICATE}


@CUTS
async def test_a_trigger_whose_answer_is_lost_is_known_if_its_step_runs(
    lossy: LossyPostgres, tmp_path: Path, *, after_commit: bool
) -> None:
    async with runs_over(lossy, tmp_path) as runs:
        lossy.lose("COMMIT", after_commit=after_commit, following="add_run")

        if after_commit:
            run_id = await runs.trigger()
            assert await runs.steps_are(run_id) == [State.RUNNING]
            assert [job.run_id for job in runs.told()] == [run_id]
        else:
            with pytest.raises(MaybeStored):
                await runs.trigger()
            assert await runs.engine.sql("SELECT 1 FROM workflow_runs") == []
        assert runs.matcher.free(runs.session.id) == SLOTS - after_commit
        assert runs.stream.ended == []


async def test_the_streams_end_if_nobody_can_know_what_an_advance_has_stored(
    lossy: LossyPostgres, tmp_path: Path
) -> None:
    async with runs_over(lossy, tmp_path) as runs:
        lossy.lose("COMMIT", after_commit=True, following="add_run", for_good=True)

        with pytest.raises(MaybeStored):
            await runs.trigger()

        assert runs.engine.sessions.get(runs.session.id) is None
        assert runs.told() == []
        await lossy.open()


async def test_what_was_cut_before_its_commit_gives_the_credit_back_and_is_matched_again(
    lossy: LossyPostgres, tmp_path: Path
) -> None:
    async with runs_over(lossy, tmp_path) as runs:
        ending, going_on = await runs.trigger(), await runs.trigger()
        [one], [other] = await runs.steps(ending), await runs.steps(going_on)
        await runs.settle(succeeded(one, stdout=b""))
        [_, last] = await runs.steps(ending)
        # The transaction that ends the one run and goes on with the other is cut behind its insert.
        lossy.lose("close_runs", after_commit=False)

        await runs.settle(succeeded(last, stdout=b""), succeeded(other, stdout=b"kept"))

        assert lossy.cuts == 1
        assert await runs.steps_are(ending) == [State.COMPLETED] * 2
        assert await runs.steps_are(going_on) == [State.COMPLETED, State.RUNNING]
        assert [job.previous_output for job in runs.told(["two"]) if job.run_id == going_on] == [b"kept"]
        assert runs.matcher.free(runs.session.id) == SLOTS - 1
        assert runs.stream.ended == []
