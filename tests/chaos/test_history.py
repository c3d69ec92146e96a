"""The history against a Postgres of its own: everything committed, in order, once, whatever happens to Postgres."""

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from orqestra.embedded.postgres import EmbeddedPostgres, find_binaries
from orqestra.model.lifecycle import State
from orqestra.store import migrations
from tests.chaos.evidence import Change, Transaction, read_final, sample
from tests.chaos.history import CHANGES_PER_READ, History
from tests.support.databases import fresh_database, make_template

SETTINGS = {"wal_level": "logical", "restart_after_crash": "off"}
INSERT = """INSERT INTO jobs (id, queue, lane_id, priority, type, payload, max_retries, backoff_base_ms, backoff_factor,
                              backoff_cap_ms, timeout_ms, grace_ms, available_at, delayed)
            SELECT id, 'default', 1, 4, 'shell', 'x', 3, 1000, 2, 300000, 0, 5000, now(), false
            FROM unnest($1::bigint[]) AS id"""
CLAIM = "UPDATE jobs SET state = $2, fence = fence + 1, token = 7, session_id = 3 WHERE id = $1"
OUTBOX = "INSERT INTO outbox (server_id, entries) VALUES (1, $1)"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def logical_postgres(services_directory: Path) -> AsyncIterator[EmbeddedPostgres]:
    """A Postgres with logical decoding, and the migrated template in it."""
    async with EmbeddedPostgres(services_directory / "logical", durable=False, settings=SETTINGS) as server:
        await make_template(server)
        yield server


@pytest_asyncio.fixture
async def url(logical_postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """A migrated database of this test alone."""
    async with fresh_database(logical_postgres) as database:
        yield database


@pytest_asyncio.fixture
async def history(url: str) -> AsyncIterator[History]:
    """A history of that database."""
    opened = await History.open(url)
    yield opened
    await opened.close()


@pytest_asyncio.fixture
async def sql(url: str) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    """A connection to that database."""
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


async def until_true(sql: "asyncpg.Connection[asyncpg.Record]", query: str, value: str) -> None:
    async with asyncio.timeout(20):
        while not await sql.fetchval(query, value):
            await asyncio.sleep(0.02)


def only_change(transactions: list[Transaction]) -> Change:
    [transaction] = transactions
    [change] = transaction.changes
    return change


async def test_an_insert_has_its_row_and_the_time_of_its_commit(
    history: History, sql: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await sql.execute(INSERT, [1])

    [transaction] = await history.read()

    [change] = transaction.changes
    assert (change.table, change.kind, change.before) == ("jobs", "insert", None)
    row = change.row
    assert (row["id"], row["state"], row["fence"], row["token"]) == (1, State.PENDING, 0, None)
    assert (row["delayed"], row["backoff_factor"], row["queue"]) == (False, 2.0, "default")
    assert row["created_at"] == await sql.fetchval("SELECT created_at FROM jobs")
    assert abs(datetime.now(UTC) - transaction.committed_at) < timedelta(minutes=1)


async def test_updates_and_deletes_have_the_row_of_before(
    history: History, sql: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await sql.execute(INSERT, [1])
    await history.read()

    await sql.execute(CLAIM, 1, State.RUNNING)
    await sql.execute("DELETE FROM jobs")
    claim, deletion = (transaction.changes[0] for transaction in await history.read())

    assert claim.before is not None
    assert claim.after is not None
    assert [(row["state"], row["fence"], row["token"]) for row in (claim.before, claim.after)] == [
        (State.PENDING, 0, None),
        (State.RUNNING, 1, 7),
    ]
    assert (deletion.kind, deletion.after) == ("delete", None)
    assert deletion.row["state"] == State.RUNNING


async def test_a_transaction_is_one_whatever_tables_it_touches(
    history: History, sql: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    async with sql.transaction():
        await sql.execute(INSERT, [1, 2])
        await sql.execute(OUTBOX, b"\x00\xff\\")
        await sql.execute("INSERT INTO workflow_runs (name, definition) VALUES ('w', '{}')")
        xid = await sql.fetchval("SELECT pg_current_xact_id()::text::bigint")

    [transaction] = await history.read()

    assert [change.table for change in transaction.changes] == ["jobs", "jobs", "outbox", "workflow_runs"]
    assert transaction.changes[2].row["entries"] == b"\x00\xff\\"
    assert transaction.xid == xid


async def test_commits_come_in_their_order_and_rolled_back_ones_do_not_come(history: History, url: str) -> None:
    first, second = await asyncpg.connect(url), await asyncpg.connect(url)
    async with first.transaction():
        await first.execute(INSERT, [1])
        await second.execute(INSERT, [2])
        with pytest.raises(asyncpg.UniqueViolationError):
            await second.execute(INSERT, [2])
    await first.close()
    await second.close()

    transactions = await history.read()

    assert [transaction.changes[0].row["id"] for transaction in transactions] == [2, 1]
    assert transactions[0].lsn < transactions[1].lsn
    assert transactions[0].committed_at <= transactions[1].committed_at


async def test_what_is_stored_out_of_line_is_there_after_an_update_of_something_else(
    history: History, sql: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    output = os.urandom(8192)
    await sql.execute(INSERT, [1])
    await sql.execute(CLAIM, 1, State.RUNNING)
    await sql.execute("UPDATE jobs SET stdout = $1", output)
    await history.read()

    await sql.execute("UPDATE jobs SET error = 'later'")
    change = only_change(await history.read())

    assert change.before is not None
    assert change.before["stdout"] == change.row["stdout"] == output
    assert change.row["payload"] is None  # never kept


async def test_a_second_read_gives_only_what_is_new(
    history: History, sql: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await sql.execute(INSERT, [1])
    assert only_change(await history.read()).row["id"] == 1
    assert await history.read() == []

    await sql.execute(INSERT, [2])
    assert only_change(await history.read()).row["id"] == 2


async def test_skip_forgets_what_is_there(history: History, sql: "asyncpg.Connection[asyncpg.Record]") -> None:
    await sql.execute(INSERT, [1])
    await history.skip()
    await sql.execute(INSERT, [2])

    assert only_change(await history.read()).row["id"] == 2


async def test_a_long_history_comes_whole(history: History, sql: "asyncpg.Connection[asyncpg.Record]") -> None:
    for start in range(0, CHANGES_PER_READ, 5000):
        await sql.execute(INSERT, list(range(start, start + 5000)))
    await sql.execute(INSERT, [CHANGES_PER_READ])

    transactions = await history.read()

    ids = [change.row["id"] for transaction in transactions for change in transaction.changes]
    assert ids == list(range(CHANGES_PER_READ + 1))


async def test_a_reader_that_has_the_slot_is_waited_for(
    history: History, url: str, sql: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    slot = await sql.fetchval("SELECT slot_name FROM pg_replication_slots WHERE database = current_database()")
    options = ("-o", "proto_version=1", "-o", f"publication_names={slot}", "--file", "/dev/null", "--no-loop")
    receive = (str(find_binaries() / "pg_recvlogical"), "--dbname", url, "--slot", slot, "--start", *options)
    receiver = await asyncio.create_subprocess_exec(*receive)
    try:
        await until_true(sql, "SELECT active FROM pg_replication_slots WHERE slot_name = $1", slot)
        reading = asyncio.create_task(history.read())
        refused = "SELECT count(*) > 0 FROM pg_stat_activity WHERE state = 'idle' AND query LIKE $1"
        await until_true(sql, refused, "%pg_logical_slot_peek_binary_changes%")
    finally:
        receiver.kill()
        await receiver.wait()

    assert await reading == []


async def test_opening_again_removes_what_was_left(url: str, sql: "asyncpg.Connection[asyncpg.Record]") -> None:
    await History.open(url)  # whoever opened it was killed
    await sql.execute(INSERT, [1])

    opened = await History.open(url)
    await sql.execute(INSERT, [2])

    assert only_change(await opened.read()).row["id"] == 2
    await opened.close()
    assert await sql.fetchval("SELECT count(*) FROM pg_replication_slots") == 0
    assert await sql.fetchval("SELECT count(*) FROM pg_publication") == 0


async def test_nothing_is_lost_and_nothing_comes_twice_when_postgres_is_killed(folder: Path) -> None:
    async with EmbeddedPostgres(folder / "killed", settings=SETTINGS) as postgres:
        await migrations.up(postgres.url())
        history = await History.open(postgres.url())
        seen: list[int] = []
        for round_number in range(3):
            connection = await asyncpg.connect(postgres.url())
            await connection.execute(INSERT, [10 * round_number])
            # The slot has gone on from here, which it forgets in the crash: no checkpoint comes between.
            seen += [only_change(await history.read()).row["id"]]
            await connection.execute(INSERT, [10 * round_number + 1])
            unfinished = connection.transaction()
            await unfinished.start()
            await connection.execute(INSERT, [10 * round_number + 2])

            postgres.child.kill_tree()
            await postgres.child.wait()
            connection.terminate()
            await postgres.start()

            seen += [only_change(await history.read()).row["id"]]

        assert seen == [0, 1, 10, 11, 20, 21]
        await history.close()


async def test_final_rows_and_samples_are_read_from_the_tables(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(INSERT, [1, 2])
    session = await connection.fetchval(
        """INSERT INTO sessions (worker_id, incarnation, number, name, server_id, server_name, slots, queues, labels,
                                 lease_expires_at)
           VALUES (gen_random_uuid(), gen_random_uuid(), 1, 'w', 1, 's', 4, '{default}', '{}',
                   now() - interval '5 s') RETURNING id"""
    )
    for job_id in (1, 2):
        await connection.execute(CLAIM, job_id, State.RUNNING)
    await connection.execute("UPDATE jobs SET session_id = $1", session)
    await connection.execute(
        "INSERT INTO job_output VALUES (2, 1, 1, 3, 'def'), (2, 1, 1, 0, 'abc'), (2, 1, 2, 0, 'e')"
    )
    await connection.execute(
        "INSERT INTO outbox (server_id, entries, created_at) VALUES (1, '', now() - interval '9 s')"
    )
    await connection.close()

    final = await read_final(url, since_id=1)
    look = await sample(url)

    [job] = final.jobs
    assert (job["id"], job["output"], job["session_id"]) == (2, b"abcdef", session)
    assert [row["queues"] for row in final.sessions] == [["default"]]
    assert (len(final.outbox), final.attempts, final.runs) == (1, (), ())
    assert look.overdue_running == 2
    assert look.outbox_oldest_s is not None
    assert 9 <= look.outbox_oldest_s < 60
