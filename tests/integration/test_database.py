"""Connections to Postgres: how they are set up, how they end, and what is known of their backends."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from orqestra.model.errors import OutcomeUnknown, StorageUnavailable
from orqestra.store.backends import end_backend
from orqestra.store.connections import Backend
from orqestra.store.database import Database, until_known
from orqestra.store.queries import Query
from tests.support.engine import Engine, engine_on
from tests.support.lossy_postgres import LossyPostgres
from tests.support.server import Sql
from tests.support.waiting import until

SOON_SECONDS = 5.0
GIVE_UP_SECONDS = 0.2


async def backend_of(database: Database) -> Backend:
    async with database.connection() as statements:
        assert statements.backend is not None
        return statements.backend


async def runs(sql: Sql, backend: Backend) -> bool:
    return bool(await sql.fetchval("SELECT count(*) FROM pg_stat_activity WHERE pid = $1", backend.pid))


async def _is_gone(sql: Sql, backend: Backend) -> bool:
    # A transaction sees the activity of the moment when it first looked.
    await sql.execute("SELECT pg_stat_clear_snapshot()")
    return not await runs(sql, backend)


async def _waits(sql: Sql, backend: Backend) -> bool:
    """Tell whether it waits for a lock of this connection."""
    return bool(await sql.fetchval("SELECT pg_backend_pid() = ANY(pg_blocking_pids($1))", backend.pid))


async def test_a_transaction_that_is_forgotten_does_not_hold_its_locks_for_ever(database: str) -> None:
    async with engine_on(database) as engine:
        [row] = await engine.sql("SHOW idle_in_transaction_session_timeout")

    assert row[0] == "10s"


async def test_a_statement_that_nobody_waits_for_any_more_does_not_wait_on(database: str, sql: Sql) -> None:
    await sql.execute("CREATE TABLE held (id integer)")
    postgres = await Database.connect(database, connections=1, timeout_seconds=GIVE_UP_SECONDS)
    try:
        async with sql.transaction():
            await sql.execute("LOCK TABLE held")
            with pytest.raises(OutcomeUnknown):
                async with postgres.connection() as statements:
                    left = statements.backend
                    # As a statement of ours that has no answer in time.
                    statements._queries["waiting"] = Query(
                        name="waiting", text="SELECT count(*) FROM held", parameters=()
                    )
                    await statements.fetch("waiting")

            # What has the lock goes on, and Postgres is rid of the other.
            assert left is not None
            await until(lambda: _is_gone(sql, left))
    finally:
        await postgres.close(1.0)


async def test_a_statement_that_an_operator_cancels_may_have_stored_something(database: str, sql: Sql) -> None:
    await sql.execute("CREATE TABLE held (id integer)")
    async with engine_on(database) as engine, sql.transaction():
        await sql.execute("LOCK TABLE held")
        async with engine.database.connection() as statements:
            backend = statements.backend
            assert backend is not None
            statements._queries["waiting"] = Query(name="waiting", text="SELECT count(*) FROM held", parameters=())
            task = asyncio.create_task(statements.fetch("waiting"))
            await until(lambda: _waits(sql, backend))
            await sql.execute("SELECT pg_cancel_backend($1)", backend.pid)
            with pytest.raises(OutcomeUnknown):
                await task


async def test_who_may_have_so_many_connections_waits_for_his_own_and_leaves_the_others(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orqestra.store.database.ACQUIRE_TIMEOUT_SECONDS", GIVE_UP_SECONDS)
    async with engine_on(database) as engine:
        callers = engine.database.at_most(1)
        async with callers.connection():
            with pytest.raises(StorageUnavailable, match="all taken"):
                await callers.fetch("count_lapsed")
            await engine.database.fetch("count_lapsed")

        # What was lent is there again, however it ended.
        with pytest.raises(ZeroDivisionError):
            async with callers.transaction():
                raise ZeroDivisionError
        await callers.fetch("count_lapsed")


async def test_a_cancel_while_a_transaction_begins_stays_a_cancel(lossy: LossyPostgres) -> None:
    async with engine_on(lossy.url) as engine:
        await backend_of(engine.database)
        lossy.hold("BEGIN")
        task = asyncio.create_task(_transact(engine))
        await lossy.held.wait()

        await give_up(task)


@pytest.mark.parametrize("statement", ["BEGIN", "count_lapsed"])
async def test_what_is_cut_before_its_commit_has_stored_nothing(lossy: LossyPostgres, statement: str) -> None:
    async with engine_on(lossy.url) as engine:
        lossy.lose(statement, after_commit=True)
        with pytest.raises(StorageUnavailable):
            await _transact(engine)

        lossy.lose("COMMIT", after_commit=True)
        with pytest.raises(OutcomeUnknown):
            await _transact(engine)


async def test_a_connection_whose_commit_had_no_answer_in_time_is_nobody_elses(database: str, sql: Sql) -> None:
    # A COMMIT that takes long, and ends at once when it is asked to.
    await sql.execute("CREATE TABLE slow (id integer)")
    await sql.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM pg_sleep(30); RETURN NULL; END$$"
    )
    await sql.execute(
        "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON slow DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION slow()"
    )
    postgres = await Database.connect(database, connections=1, timeout_seconds=0.2)
    try:
        with pytest.raises(OutcomeUnknown):
            async with postgres.transaction() as statements:
                first = statements.backend
                await statements._connection.execute("INSERT INTO slow VALUES (1)")

        assert await backend_of(postgres) != first
    finally:
        await postgres.close(1.0)


async def test_what_was_given_back_is_the_next_ones_and_whoever_waits_comes_first(database: str) -> None:
    postgres = await Database.connect(database, connections=1)
    first = await backend_of(postgres)
    waiting: asyncio.Task[Backend] | None = None
    try:
        assert await backend_of(postgres) == first
        async with postgres.connection() as statements:
            assert statements.backend == first
            waiting = asyncio.create_task(backend_of(postgres))
            await statements.fetch("count_lapsed")
            assert not waiting.done()
        async with asyncio.timeout(SOON_SECONDS):
            assert await waiting == first
    finally:
        async with asyncio.timeout(SOON_SECONDS):
            await postgres.close(2 * SOON_SECONDS)


async def test_a_connection_on_which_something_was_given_up_goes_back_to_the_pool(database: str, sql: Sql) -> None:
    postgres = await Database.connect(database, connections=1)
    await sql.execute("BEGIN; LOCK TABLE sessions IN ACCESS EXCLUSIVE MODE")
    giving_up = asyncio.create_task(postgres.fetch("count_lapsed"))
    try:
        await until_waiting(sql)
        await give_up(giving_up)
        assert postgres._connections._at_hand == []
        await sql.execute("ROLLBACK")

        assert await postgres.fetch("count_lapsed")
    finally:
        await postgres.close(1.0)


async def test_a_change_of_plans_that_was_given_up_is_not_taken_for_one_or_the_other(lossy: LossyPostgres) -> None:
    async with engine_on(lossy.url) as engine:
        first = await backend_of(engine.database)
        lossy.hold("enable_seqscan")
        changing = asyncio.create_task(_submit_nothing(engine))
        await lossy.held.wait()
        await give_up(changing)

        assert await backend_of(engine.database) != first


async def give_up(task: asyncio.Task[Any]) -> None:
    """Cancel a task, which has to end as cancelled."""
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _submit_nothing(engine: Engine) -> None:
    async with engine.database.connection(planned_once=True):
        return


async def test_behind_a_pooler_nothing_is_set_that_others_would_feel(lossy: LossyPostgres) -> None:
    lossy.hides_pids = True
    async with engine_on(lossy.url) as engine:
        for once in (True, False, True):
            async with engine.database.connection(planned_once=once) as statements:
                assert statements.backend is None
                assert await statements.fetch("count_lapsed")

    assert lossy.count("enable_seqscan") == 0


async def until_waiting(sql: Sql) -> None:
    """Return once somebody waits for a lock."""

    async def is_waiting() -> bool:
        return bool(await sql.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))

    await until(is_waiting)


async def _transact(engine: Engine) -> None:
    async with engine.database.transaction() as statements:
        await statements.fetch("count_lapsed")


@pytest.mark.parametrize("in_transaction", [False, True])
async def test_an_idle_connection_that_was_ended_is_replaced_before_anything_is_sent(
    lossy: LossyPostgres, sql: Sql, *, in_transaction: bool
) -> None:
    """Between the reason and the end of a connection there is a moment; here it lasts."""
    async with engine_on(lossy.url) as engine:
        run = _transact if in_transaction else _read
        await end_and_linger(lossy, sql, await backend_of(engine.database))

        with pytest.raises(StorageUnavailable):
            await run(engine)

        await run(engine)


async def end_and_linger(lossy: LossyPostgres, sql: Sql, backend: Backend) -> None:
    """End a backend, and return once its client has read that it was, but not yet that it is gone."""
    lossy.lingers = True
    await sql.execute("SELECT pg_terminate_backend($1)", backend.pid)
    await lossy.lingering.wait()
    # A round trip on another connection: what was on its way to the client is there.
    await sql.fetchval("SELECT 1")


async def _read(engine: Engine) -> None:
    await engine.database.fetch("count_lapsed")


async def test_a_read_that_is_cut_off_is_read_again_at_once(lossy: LossyPostgres) -> None:
    async with engine_on(lossy.url) as engine:
        lossy.lose("count_lapsed", after_commit=False)

        assert len(await engine.database.insist("count_lapsed")) == 1
        assert lossy.cuts == 1


async def test_what_is_unknown_stays_unknown_though_the_next_try_stored_nothing(lossy: LossyPostgres) -> None:
    """ "Nothing was stored" is true of the second try and would be taken for all of it."""
    tries: list[int] = []

    async def attempt() -> int:
        tries.append(1)
        match len(tries):
            case 1:
                raise OutcomeUnknown("lost")
            case 2:
                raise StorageUnavailable("away") from TimeoutError()
            case 3:
                return 3
            case _:
                raise StorageUnavailable("away") from TimeoutError()

    assert await until_known(attempt) == 3
    with pytest.raises(StorageUnavailable):
        await until_known(attempt)


# Ending backends


async def test_a_backend_is_known_by_its_pid_and_its_start(database: str, sql: Sql) -> None:
    async with engine_on(database) as engine:
        backend = await backend_of(engine.database)

        started_at = await sql.fetchval("SELECT backend_start FROM pg_stat_activity WHERE pid = $1", backend.pid)

    assert backend.started_at == started_at


async def test_a_backend_that_is_ended_is_gone_and_the_next_connection_has_another(database: str, sql: Sql) -> None:
    async with engine_on(database) as engine:
        backend = await backend_of(engine.database)

        assert await end_backend(engine.database, backend)

        assert not await runs(sql, backend)
        assert await backend_of(engine.database) != backend


async def test_a_backend_that_was_gone_before_is_gone(database: str) -> None:
    async with engine_on(database) as engine:
        backend = await backend_of(engine.database)
        await end_backend(engine.database, backend)

        assert await end_backend(engine.database, backend)


async def test_another_backend_that_got_the_pid_is_left_alone(database: str, sql: Sql) -> None:
    async with engine_on(database) as engine:
        innocent = await backend_of(engine.database)
        former = replace(innocent, started_at=innocent.started_at - timedelta(minutes=1))

        assert await end_backend(engine.database, former)

        assert await runs(sql, innocent)
