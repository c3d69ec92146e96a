"""Retention: what ended long ago goes with all that belongs to it, a little at a time; nothing else ever does."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import pytest
import pytest_asyncio

from orqestra.engine import retention
from orqestra.engine.retention import Deleted, retentions
from orqestra.model.errors import NotFound
from orqestra.model.lifecycle import TERMINAL, State
from orqestra.settings import Settings
from tests.support.databases import bare
from tests.support.engine import Engine, engine_on, noop, succeeded
from tests.support.metrics import scrape
from tests.support.plans import Sql
from tests.support.retention import (
    AGES_MS,
    DAY_MS,
    Past,
    add_jobs,
    add_run,
    fail,
    finish_round,
    is_end_of_round,
    loops_of,
    rows_left,
)
from tests.support.server import running_server

LIVE = sorted(set(State) - TERMINAL)
HOUR_MS = 3600 * 1000


@pytest_asyncio.fixture
async def engine(database: str) -> AsyncIterator[Engine]:
    async with engine_on(database) as engine:
        yield engine


@pytest.mark.parametrize("state", sorted(TERMINAL))
async def test_each_state_goes_after_its_own_time(engine: Engine, state: State) -> None:
    age_ms = AGES_MS[state]
    _, young = await add_jobs(
        engine, Past(state=state, age_ms=age_ms + HOUR_MS), Past(state=state, age_ms=age_ms - HOUR_MS)
    )

    await finish_round(loops_of(engine))

    left = await rows_left(engine)
    assert left["jobs"] == left["attempts"] == left["job_output"] == {young}


@pytest.mark.parametrize("state", LIVE)
async def test_what_has_not_ended_stays_however_old(engine: Engine, state: State) -> None:
    ids = await add_jobs(engine, *[Past(state=state)] * 3, Past(state=State.COMPLETED), Past(state=state))

    await finish_round(loops_of(engine, dict.fromkeys(TERMINAL, 1)))

    assert (await rows_left(engine))["jobs"] == set(ids) - {ids[3]}


@pytest.mark.parametrize("state", sorted(TERMINAL))
async def test_a_state_without_a_time_is_kept(engine: Engine, state: State) -> None:
    kept, gone = await add_jobs(
        engine, Past(state=state), Past(state=State.FAILED if state is State.COMPLETED else State.COMPLETED)
    )
    run, steps = await add_run(engine, state, state)
    ages_ms = {each: age_ms for each, age_ms in AGES_MS.items() if each is not state}

    await finish_round(loops_of(engine, ages_ms))

    left = await rows_left(engine)
    assert left["jobs"] == {kept, *steps}
    assert left["runs"] == {run}
    assert gone not in left["job_output"]


async def test_without_any_time_there_is_no_loop(engine: Engine) -> None:
    assert loops_of(engine, {}) == ()


async def test_one_that_waited_long_is_as_old_as_its_end(engine: Engine) -> None:
    """Submitted long ago and ended just now, among those that went."""
    ids = await add_jobs(engine, Past(), Past(age_ms=HOUR_MS, created_ms=100 * DAY_MS), Past())

    await finish_round(loops_of(engine))

    assert (await rows_left(engine))["jobs"] == {ids[1]}


async def test_a_run_goes_with_all_its_steps(engine: Engine) -> None:
    await add_run(engine, State.COMPLETED, State.COMPLETED, State.COMPLETED)
    await add_run(engine, State.FAILED, State.COMPLETED, State.FAILED)
    await add_run(engine, State.CANCELLED, State.COMPLETED, State.CANCELLED)
    await add_run(engine, State.CANCELLED)
    loops = loops_of(engine)

    await finish_round(loops)

    assert not any((await rows_left(engine)).values())
    assert loops[0]._deleted.counts == {"jobs": 6, "attempts": 12, "job_output": 12, "workflow_runs": 4}


async def test_a_run_goes_after_the_time_of_its_own_state(engine: Engine) -> None:
    """The steps of a failed run that completed are there for as long as it may be retried."""
    run, steps = await add_run(engine, State.FAILED, State.COMPLETED, State.FAILED, age_ms=20 * DAY_MS)

    await finish_round(loops_of(engine))

    left = await rows_left(engine)
    assert (left["runs"], left["jobs"]) == ({run}, set(steps))


@pytest.mark.parametrize("live", LIVE)
async def test_a_run_with_a_live_step_stays_whole(engine: Engine, live: State) -> None:
    """Its other steps too: their output is what the live one is given."""
    run, steps = await add_run(engine, State.FAILED, State.COMPLETED, State.FAILED, live)
    other, others = await add_run(engine, State.RUNNING, State.COMPLETED, live)

    await finish_round(loops_of(engine))

    left = await rows_left(engine)
    assert (left["runs"], left["jobs"]) == ({run, other}, {*steps, *others})


async def test_a_run_stays_until_its_last_step_is_old(engine: Engine) -> None:
    """One that was cancelled may have had a command that took its time to end."""
    run, steps = await add_run(engine, State.CANCELLED, State.CANCELLED)
    late = await add_jobs(engine, Past(state=State.CANCELLED, age_ms=DAY_MS, run_id=run, step_key="late"))

    await finish_round(loops_of(engine))

    assert (await rows_left(engine))["jobs"] == {*steps, *late}


async def test_rows_in_other_hands_are_passed_over_and_go_later(engine: Engine, sql: Sql) -> None:
    jobs = await add_jobs(engine, Past(), Past(), Past(state=State.FAILED), Past(state=State.FAILED))
    run, steps = await add_run(engine, State.COMPLETED, State.COMPLETED)
    loops = loops_of(engine)

    async with sql.transaction():
        await sql.fetch("SELECT id FROM jobs WHERE id = ANY($1::bigint[]) FOR UPDATE", [jobs[0], jobs[2]])
        await sql.fetch("SELECT id FROM workflow_runs WHERE id = $1 FOR UPDATE", run)
        async with asyncio.timeout(5):
            await finish_round(loops)
        assert (await rows_left(engine))["jobs"] == {jobs[0], jobs[2], *steps}

    await finish_round(loops)
    assert not any((await rows_left(engine)).values())


async def test_one_that_is_retried_meanwhile_stays(engine: Engine) -> None:
    """Found old, and then retried before it was deleted."""
    [job] = await add_jobs(engine, Past(state=State.FAILED))
    [_, unhappy, _] = loops_of(engine)
    find = unhappy._kind.find

    page = await find(after=0, span=10, rows=10, is_begin=True, **unhappy._old)
    await engine.cancels.retry(job)
    await unhappy._delete(page[0]["ids"])

    assert (await engine.job(job))["state"] == State.PENDING
    assert len(await engine.attempts(job)) == 2


async def test_a_step_that_is_being_retried_keeps_its_run(engine: Engine) -> None:
    """Retention sees the run before the retry commits, and comes to delete it after."""
    run, steps = await add_run(engine, State.FAILED, State.COMPLETED, State.FAILED)
    *_, runs = loops_of(engine)
    page = await runs._kind.find(after=0, span=10, rows=10, **runs._old)
    assert page[0]["ids"] == [run]

    await engine.cancels.retry(steps[1])
    await runs._delete([run])

    left = await rows_left(engine)
    assert (left["runs"], left["jobs"]) == ({run}, set(steps))


async def test_a_retry_that_is_not_committed_yet_keeps_its_run(engine: Engine, sql: Sql) -> None:
    run, steps = await add_run(engine, State.FAILED, State.COMPLETED, State.FAILED)
    loops = loops_of(engine)

    async with sql.transaction():
        await sql.execute("SELECT id FROM workflow_runs WHERE id = $1 FOR UPDATE", run)
        await sql.execute(
            "UPDATE jobs SET state = $2, attempt = 0, finished_at = NULL WHERE id = $1", steps[1], State.PENDING
        )
        await sql.execute("UPDATE workflow_runs SET state = 'running', finished_at = NULL WHERE id = $1", run)
        await finish_round(loops)

    await finish_round(loops)
    left = await rows_left(engine)
    assert (left["runs"], left["jobs"]) == ({run}, set(steps))


async def test_what_was_deleted_is_not_found_and_its_key_is_free(engine: Engine) -> None:
    worker = await engine.connect()
    row = await engine.running(worker, key="once")
    await engine.settle(succeeded(row))
    await engine.sql(
        "UPDATE jobs SET created_at = created_at - interval '8 days', available_at = available_at - interval '8 days'"
    )
    async with bare(engine.database) as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute("UPDATE jobs SET finished_at = finished_at - interval '8 days'")

    assert (await engine.store(noop(key="once"))).ids == [row["id"]]
    await finish_round(loops_of(engine))

    assert (await engine.store(noop(key="once"))).ids != [row["id"]]
    with pytest.raises(NotFound):
        await engine.cancels.retry(row["id"])


async def test_a_step_of_a_loop_deletes_no_more_than_a_batch(engine: Engine) -> None:
    total = 3 * retention.BATCH_JOBS
    await add_jobs(engine, *[Past()] * total)
    [completed, *_] = loops_of(engine)
    before = total
    rests = []

    while before:
        rests.append(await completed.run_once())
        now = len((await rows_left(engine))["jobs"])
        assert 0 < before - now <= retention.BATCH_JOBS
        before = now

    assert all(rest is not None and rest >= retention.REST_LEAST_SECONDS for rest in rests)
    assert not any(is_end_of_round(rest) for rest in rests[:-1])
    assert completed._deleted.counts["jobs"] == total


async def test_a_batch_that_took_long_or_failed_makes_the_next_one_smaller(engine: Engine) -> None:
    await add_jobs(engine, *[Past()] * 400)
    [completed, *_] = loops_of(engine)
    await completed.run_once()
    assert completed._rows == 2 * retention.FIRST_ROWS
    await engine.sql("ALTER TABLE attempts RENAME TO elsewhere")

    for _ in range(10):
        with pytest.raises(asyncpg.UndefinedTableError):
            await completed.run_once()

    assert completed._rows == retention.LEAST_ROWS
    await engine.sql("ALTER TABLE elsewhere RENAME TO attempts")
    await finish_round([completed])
    assert not any((await rows_left(engine)).values())


async def test_a_round_ends_where_rows_begin_that_are_too_young(engine: Engine) -> None:
    """It does not go through all that is kept: that would be most of the table, each minute."""
    await add_jobs(engine, *[Past()] * 10, *[Past(age_ms=HOUR_MS)] * 4000)

    steps = await finish_round(loops_of(engine))

    assert max(steps) <= 2


async def test_a_clock_that_once_was_ahead_ends_no_round(engine: Engine) -> None:
    ahead = await add_jobs(engine, *[Past(age_ms=-400 * DAY_MS)] * 200)
    await add_jobs(engine, Past(), Past(state=State.FAILED))

    await finish_round(loops_of(engine))

    assert (await rows_left(engine))["jobs"] == set(ahead)


async def test_a_walk_passes_over_many_ids_that_are_gone(engine: Engine) -> None:
    await add_jobs(engine, Past(state=State.PENDING), Past())
    await engine.sql("SELECT setval('jobs_id_seq', $1)", 40 * retention.SPAN_IDS)
    await add_jobs(engine, Past(), Past(state=State.PENDING))
    loops = loops_of(engine)

    await finish_round(loops)
    left = (await rows_left(engine))["jobs"]
    again = await finish_round(loops)

    assert len(left) == 2
    assert again[0] == 41, "below the first row that stayed there is nothing to look for"


async def test_the_next_round_begins_where_something_was_left(engine: Engine) -> None:
    """Not at the first id of all: the entries of deleted rows stay in the index until a vacuum."""
    await add_jobs(engine, *[Past()] * 10)
    await engine.sql("SELECT setval('jobs_id_seq', $1)", 5 * retention.SPAN_IDS)
    await add_jobs(engine, Past())
    loops = loops_of(engine)

    first = await finish_round(loops)
    second = await finish_round(loops)

    assert (first[0], second[0]) == (6, 2)


@pytest.mark.parametrize("live", LIVE)
async def test_what_fails_after_the_walk_has_passed_goes_as_well(engine: Engine, live: State) -> None:
    ids = await add_jobs(engine, Past(state=live), Past(state=live))
    await engine.sql("SELECT setval('jobs_id_seq', $1)", 5 * retention.SPAN_IDS)
    await add_jobs(engine, Past())
    loops = loops_of(engine)
    await finish_round(loops)
    await fail(engine, ids[0])

    await finish_round(loops)

    assert (await rows_left(engine))["jobs"] == {ids[1]}
    await fail(engine, ids[1])
    assert (await finish_round(loops))[1] == 6
    assert not (await rows_left(engine))["jobs"]
    assert (await finish_round(loops))[1] == 2, "nothing is left to come back for"


async def test_two_servers_at_once_delete_each_row_once(engine: Engine) -> None:
    await add_jobs(engine, *[Past(), Past(state=State.FAILED)] * 1000)
    for _ in range(20):
        await add_run(engine, State.COMPLETED, State.COMPLETED)
    first, second = Deleted(), Deleted()

    loops = [*retentions(engine.core, AGES_MS, first), *retentions(engine.core, AGES_MS, second)]
    await asyncio.gather(*(finish_round([loop]) for loop in loops))

    assert not any((await rows_left(engine)).values())
    assert first.counts["jobs"] + second.counts["jobs"] == 2020
    assert first.counts["workflow_runs"] + second.counts["workflow_runs"] == 20


async def test_a_server_deletes_by_itself_and_counts_it(engine: Engine, server_settings: Settings) -> None:
    await add_jobs(engine, Past())

    async with running_server(server_settings) as server:
        samples = await scrape(server.http)

    counts = {table: samples[f"orqestra_deleted_rows_total{{{table}}}"] for table in retention.TABLES}
    assert counts == {"jobs": 1, "attempts": 2, "job_output": 2, "workflow_runs": 0}


async def test_a_server_keeps_what_its_settings_say(engine: Engine, server_settings: Settings) -> None:
    kept = await add_jobs(engine, Past())

    async with running_server(replace(server_settings, delete_completed_after_ms=None)):
        pass

    assert (await rows_left(engine))["jobs"] == set(kept)
