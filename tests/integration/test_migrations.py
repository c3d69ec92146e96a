"""The migration runner, on real databases: order, checksums, two at once, and every way to be told no."""

import asyncio
from pathlib import Path

import asyncpg
import pytest

from orqestra.embedded.postgres import EmbeddedPostgres
from orqestra.model.errors import (
    BadSettings,
    InvalidInput,
    MigrationFailed,
    OrqestraError,
    SchemaMismatch,
    StorageUnavailable,
)
from orqestra.store import migrations
from tests.support.plans import add_jobs

SCHEMA_DUMP = """
SELECT table_name || '.' || column_name, concat_ws(' ', data_type, is_nullable, column_default)
  FROM information_schema.columns WHERE table_schema = 'public'
UNION ALL SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL SELECT conrelid::regclass || '.' || conname, pg_get_constraintdef(oid)
  FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL SELECT relname, reloptions::text FROM pg_class WHERE relnamespace = 'public'::regnamespace
ORDER BY 1, 2
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two migrations: a table `first`, then a table `second`."""
    write_pair(tmp_path, "000001_first", "CREATE TABLE first (id int);", "DROP TABLE first;")
    write_pair(tmp_path, "000002_second", "CREATE TABLE second (id int);", "DROP TABLE second;")
    return tmp_path


def write_pair(directory: Path, stem: str, up: str, down: str) -> None:
    (directory / f"{stem}.up.sql").write_text(up)
    (directory / f"{stem}.down.sql").write_text(down)


def remove_second(directory: Path) -> None:
    for file in directory.glob("000002_*"):
        file.unlink()


async def tables(dsn: str) -> set[str]:
    connection = await asyncpg.connect(dsn)
    rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    await connection.close()
    return {row["tablename"] for row in rows} - {"schema_migrations"}


async def test_up_applies_what_is_missing_and_down_undoes_the_last(empty_database: str, source: Path) -> None:
    assert await migrations.version(empty_database) == 0
    assert [each.stem for each in await migrations.pending(empty_database, source)] == [
        "000001_first",
        "000002_second",
    ]

    applied = await migrations.up(empty_database, source=source)

    assert [each.version for each in applied] == [1, 2]
    assert await migrations.version(empty_database) == 2
    assert await migrations.pending(empty_database, source) == ()
    assert await migrations.up(empty_database, source=source) == ()

    undone = await migrations.down(empty_database, source=source)

    assert [each.version for each in undone] == [2]
    assert await tables(empty_database) == {"first"}


async def test_up_stops_at_the_version_asked_for(empty_database: str, source: Path) -> None:
    await migrations.up(empty_database, to=1, source=source)

    assert await migrations.version(empty_database) == 1
    assert await tables(empty_database) == {"first"}
    assert await migrations.up(empty_database, to=1, source=source) == ()


async def test_down_undoes_as_many_as_there_are(empty_database: str, source: Path) -> None:
    await migrations.up(empty_database, source=source)

    undone = await migrations.down(empty_database, steps=9, source=source)

    assert [each.version for each in undone] == [2, 1]
    assert await tables(empty_database) == set()
    assert await migrations.down(empty_database, source=source) == ()


async def test_jobs_of_before_retry_rules_outlive_their_coming_and_going(empty_database: str) -> None:
    await migrations.up(empty_database, to=1)
    connection = await asyncpg.connect(empty_database)
    await add_jobs(connection, 3, "pending")

    await migrations.up(empty_database, to=2)
    await connection.execute("UPDATE jobs SET retry_rules = 'on=3' WHERE id = 1")
    rules = await connection.fetch("SELECT retry_rules FROM jobs ORDER BY id")
    await migrations.down(empty_database)

    assert [row["retry_rules"] for row in rules] == ["on=3", None, None]
    assert await connection.fetchval("SELECT count(*) FROM jobs") == 3
    await connection.close()


async def test_the_shipped_schema_goes_down_and_up_again_to_the_same(empty_database: str) -> None:
    async def dump() -> list[tuple[object, ...]]:
        connection = await asyncpg.connect(empty_database)
        rows = await connection.fetch(SCHEMA_DUMP)
        await connection.close()
        return [tuple(row) for row in rows]

    await migrations.up(empty_database)
    before = await dump()
    await migrations.down(empty_database, steps=len(migrations.load()))
    assert await tables(empty_database) == set()
    await migrations.up(empty_database)

    assert await dump() == before


async def test_a_migration_that_fails_leaves_nothing_behind(empty_database: str, source: Path) -> None:
    write_pair(source, "000003_bad", "CREATE TABLE third (id int);\n\nALTER TABLE nowhere ADD x int;", "SELECT 1;")

    with pytest.raises(MigrationFailed, match=r'000003_bad\.up\.sql.*relation "nowhere" does not exist'):
        await migrations.up(empty_database, source=source)

    assert await migrations.version(empty_database) == 2
    assert await tables(empty_database) == {"first", "second"}


async def test_a_syntax_error_is_told_with_its_line(empty_database: str, source: Path) -> None:
    write_pair(source, "000003_bad", "CREATE TABLE third (id int);\n\nSELEKT 1;", "SELECT 1;")

    with pytest.raises(MigrationFailed, match=r"000003_bad\.up\.sql:3: syntax error"):
        await migrations.up(empty_database, source=source)


async def test_a_migration_may_not_end_its_transaction(empty_database: str, source: Path) -> None:
    write_pair(source, "000003_bad", "CREATE TABLE third (id int); COMMIT;", "DROP TABLE third;")

    with pytest.raises(MigrationFailed, match="ended its transaction itself"):
        await migrations.up(empty_database, source=source)

    assert await migrations.version(empty_database) == 2


async def test_a_file_that_changed_after_it_was_applied_is_named(empty_database: str, source: Path) -> None:
    await migrations.up(empty_database, source=source)
    (source / "000001_first.down.sql").write_text("DROP TABLE IF EXISTS first;")

    for refused in (
        migrations.up(empty_database, source=source),
        migrations.down(empty_database, source=source),
        migrations.pending(empty_database, source),
    ):
        with pytest.raises(SchemaMismatch, match="000001_first was applied"):
            await refused
    assert await tables(empty_database) == {"first", "second"}


async def test_a_migration_that_was_renamed_is_named(empty_database: str, source: Path) -> None:
    await migrations.up(empty_database, source=source)
    remove_second(source)
    write_pair(source, "000002_other", "CREATE TABLE second (id int);", "DROP TABLE second;")

    with pytest.raises(SchemaMismatch, match=r"000002_second was applied.*000002_other"):
        await migrations.up(empty_database, source=source)


async def test_two_at_once_apply_each_migration_once(empty_database: str, source: Path) -> None:
    write_pair(source, "000003_slow", "SELECT pg_sleep(0.1); CREATE TABLE third ();", "DROP TABLE third;")

    ours, theirs = await asyncio.gather(
        migrations.up(empty_database, source=source), migrations.up(empty_database, source=source)
    )

    assert sorted(each.version for each in (*ours, *theirs)) == [1, 2, 3]
    assert await migrations.version(empty_database) == 3


async def test_check_tells_older_and_newer_schemas_apart(empty_database: str, source: Path) -> None:
    connection = await asyncpg.connect(empty_database)
    try:
        with pytest.raises(SchemaMismatch, match=r"at version 0.*needs 2: run `orqestra migrate up`"):
            await migrations.check(connection, source)

        await migrations.up(empty_database, source=source)
        await migrations.check(connection, source)

        remove_second(source)
        with pytest.raises(SchemaMismatch, match=r"at version 2.*knows only 1: upgrade"):
            await migrations.check(connection, source)
    finally:
        await connection.close()


async def test_a_newer_schema_is_not_touched(empty_database: str, source: Path) -> None:
    await migrations.up(empty_database, source=source)
    remove_second(source)

    with pytest.raises(SchemaMismatch, match="knows only 1"):
        await migrations.down(empty_database, source=source)

    assert await tables(empty_database) == {"first", "second"}


@pytest.mark.parametrize("to", [-1, 3])
async def test_a_version_that_does_not_exist_is_refused(empty_database: str, source: Path, to: int) -> None:
    with pytest.raises(InvalidInput, match=f"to: {to} .*allowed: 0 to 2"):
        await migrations.up(empty_database, to=to, source=source)


async def test_steps_must_be_positive(empty_database: str) -> None:
    with pytest.raises(InvalidInput, match=r"steps: 0 .*allowed: 1 or more"):
        await migrations.down(empty_database, steps=0)


@pytest.mark.parametrize(
    ("dsn", "error", "told"),
    [
        ("postgresql://someone:secret@127.0.0.1:1/db", StorageUnavailable, r"127\.0\.0\.1:1/db \(DB_URL\)"),
        ("postgresql://o@/db?host=/nowhere", StorageUnavailable, r"/nowhere:5432/db \(DB_URL\)"),
        ("mysql://o@localhost/db", BadSettings, "DB_URL is not"),
    ],
)
async def test_an_address_that_does_not_answer_is_named(dsn: str, error: type[OrqestraError], told: str) -> None:
    with pytest.raises(error, match=told) as caught:
        await migrations.version(dsn)

    assert "secret" not in str(caught.value)


async def test_a_database_that_does_not_exist_is_named(postgres: EmbeddedPostgres) -> None:
    with pytest.raises(StorageUnavailable, match='database "nowhere" does not exist'):
        await migrations.version(postgres.url("nowhere"))


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (["000001_a.up.sql"], r"000001_a\.down\.sql: is missing"),
        (["000001_a.up.sql", "000001_b.down.sql"], r"000001_a\.down\.sql: is missing"),
        (["000002_a.up.sql", "000002_a.down.sql"], "000002_a: .*expected 000001"),
        (["1_a.up.sql"], r"1_a\.up\.sql: is not named"),
        (["000001_A.up.sql"], r"000001_A\.up\.sql: is not named"),
    ],
)
def test_an_odd_file_is_named(tmp_path: Path, files: list[str], told: str) -> None:
    for name in files:
        (tmp_path / name).write_text("SELECT 1;")

    with pytest.raises(InvalidInput, match=told):
        migrations.load(tmp_path)


def test_create_makes_the_next_pair(source: Path) -> None:
    up, down = migrations.create("add_colour", source)

    assert (up.name, down.name) == ("000003_add_colour.up.sql", "000003_add_colour.down.sql")
    assert [each.version for each in migrations.load(source)] == [1, 2, 3]


@pytest.mark.parametrize("name", ["", "Add", "a-b", "../a", "a b", "ä", "a" * 65, "a\n"])
def test_create_refuses_odd_names(source: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match=r"name: .*allowed: up to 64 of a-z, 0-9 and _"):
        migrations.create(name, source)

    assert len(list(source.iterdir())) == 4


def test_create_names_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=f"directory: there is no directory {tmp_path}/none"):
        migrations.create("a", tmp_path / "none")
