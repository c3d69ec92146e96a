"""The schema's versions: numbered pairs of SQL files, applied in order, each in a transaction of its own.

`NNNNNN_name.up.sql` leads from version N - 1 to N, its `.down.sql` back. `schema_migrations` records
what was applied with a checksum of both files, so that one that changed afterwards is noticed. Every
transaction begins by taking one advisory lock and reading where the schema stands: of two runs at once
the second waits and finds nothing left to do. The lock is the transaction's and not the session's, so
that it holds through a connection pooler too.

The statements are here and not in `sql/`, since they must work before there is a schema.
"""

import hashlib
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

import asyncpg

from orqestra.model.errors import (
    BadSettings,
    InvalidInput,
    MigrationFailed,
    SchemaMismatch,
    StorageUnavailable,
)
from orqestra.store.connections import Connection

SHIPPED: Final[Traversable] = files("orqestra") / "migrations"
CONNECT_SECONDS: Final = 10.0
CLOSE_SECONDS: Final = 2.0
NAME_CHARS: Final = 64

_BROKEN: Final = (OSError, TimeoutError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError)
_FILE: Final = re.compile(r"([0-9]{6})_([a-z0-9_]+)\.(up|down)\.sql")
_NAME: Final = re.compile(r"[a-z0-9_]+")

_LOCK_KEY: Final = 0x6F72_7165_7374_7261  # "orqestra" in ASCII
_LOCK: Final = "SELECT pg_advisory_xact_lock($1)"
_CREATE_TABLE: Final = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT statement_timestamp()
)"""
_TABLE_EXISTS: Final = "SELECT to_regclass('schema_migrations') IS NOT NULL"
_APPLIED: Final = "SELECT version, name, checksum FROM schema_migrations ORDER BY version"
_RECORD: Final = "INSERT INTO schema_migrations (version, name, checksum) VALUES ($1, $2, $3)"
_FORGET: Final = "DELETE FROM schema_migrations WHERE version = $1"


@dataclass(frozen=True, kw_only=True)
class Migration:
    """One pair of files: the SQL that leads to `version` and the SQL that leads back."""

    version: int
    name: str
    up: str
    down: str

    @property
    def stem(self) -> str:
        """The beginning of both file names."""
        return f"{self.version:06}_{self.name}"

    @property
    def checksum(self) -> str:
        """SHA-256 over both files."""
        return hashlib.sha256(f"{self.up}\0{self.down}".encode()).hexdigest()


async def up(dsn: str, to: int | None = None, source: Traversable = SHIPPED) -> tuple[Migration, ...]:
    """Apply what is missing, up to version `to` or to the last; return what was applied by this call.

    Raises MigrationFailed if one does not apply (those before it stay), SchemaMismatch if the schema
    has versions that `source` does not know or knows otherwise.
    """
    known = load(source)
    last = len(known) if to is None else to
    if not 0 <= last <= len(known):
        raise InvalidInput("to", f"{last} is not a version of the schema; allowed: 0 to {len(known)}")
    applied: list[Migration] = []
    async with connect(dsn) as connection:
        while True:
            async with _schema_lock(connection):
                version = await _verified_version(connection, known)
                if version >= last:
                    return tuple(applied)
                await _apply(connection, known[version])
            applied.append(known[version])


async def down(dsn: str, steps: int = 1, source: Traversable = SHIPPED) -> tuple[Migration, ...]:
    """Undo the last `steps` migrations, or as many as there are; return them in the order undone."""
    if steps < 1:
        raise InvalidInput("steps", f"{steps} is not a number of migrations; allowed: 1 or more")
    known = load(source)
    undone: list[Migration] = []
    async with connect(dsn) as connection:
        while len(undone) < steps:
            async with _schema_lock(connection):
                version = await _verified_version(connection, known)
                if version == 0:
                    break
                await _undo(connection, known[version - 1])
            undone.append(known[version - 1])
    return tuple(undone)


async def version(dsn: str) -> int:
    """Return the version of the schema, 0 where nothing was ever applied."""
    async with connect(dsn) as connection:
        applied = await _read_applied(connection)
    return len(applied)


async def pending(dsn: str, source: Traversable = SHIPPED) -> tuple[Migration, ...]:
    """Return what `up` would apply; raises what it would raise for a schema it does not know."""
    known = load(source)
    async with connect(dsn) as connection:
        return known[await _verified_version(connection, known) :]


async def check(connection: Connection, source: Traversable = SHIPPED) -> None:
    """Return if the schema is exactly the one this version knows; else SchemaMismatch tells the cure."""
    known = load(source)
    version = await _verified_version(connection, known)
    if version < len(known):
        raise SchemaMismatch(
            f"the database's schema is at version {version}, this Orqestra needs {len(known)}: "
            "run `orqestra migrate up`"
        )


def load(source: Traversable = SHIPPED) -> tuple[Migration, ...]:
    """Read all pairs of a directory, numbered 1, 2, 3 ...; raises InvalidInput, which names the odd file."""
    halves: dict[tuple[int, str, str], str] = {}
    for file in source.iterdir():
        if file.name.endswith(".sql"):
            halves[_parse_file_name(file.name)] = file.read_text("utf-8")
    pairs = sorted({(number, name) for number, name, _ in halves})
    for expected, (number, name) in enumerate(pairs, start=1):
        if number != expected:
            raise InvalidInput(f"{number:06}_{name}", f"versions go 1, 2, 3 ...: expected {expected:06} here")
        for direction in ("up", "down"):
            if (number, name, direction) not in halves:
                raise InvalidInput(f"{number:06}_{name}.{direction}.sql", "is missing: a version is a pair")
    return tuple(
        Migration(version=number, name=name, up=halves[number, name, "up"], down=halves[number, name, "down"])
        for number, name in pairs
    )


def create(name: str, directory: Path) -> tuple[Path, Path]:
    """Make the next pair of files, empty but for a comment, and return their paths, up first."""
    if not _NAME.fullmatch(name) or len(name) > NAME_CHARS:
        raise InvalidInput("name", f"{name!r} is not allowed; allowed: up to {NAME_CHARS} of a-z, 0-9 and _")
    if not directory.is_dir():
        raise InvalidInput("directory", f"there is no directory {directory}")
    stem = f"{len(load(directory)) + 1:06}_{name}"
    above, below = directory / f"{stem}.up.sql", directory / f"{stem}.down.sql"
    with above.open("x") as file:
        file.write("-- What changes, and why. Runs in one transaction.\n")
    with below.open("x") as file:
        file.write(f"-- Undoes {above.name}.\n")
    return above, below


@asynccontextmanager
async def connect(dsn: str) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    """Lend a connection. Raises StorageUnavailable with the address, or BadSettings if `dsn` is none."""
    try:
        connection = await asyncpg.connect(dsn, timeout=CONNECT_SECONDS)
    except (ValueError, asyncpg.ClientConfigurationError) as error:
        raise BadSettings(f"DB_URL is not the address of a Postgres database: {error}") from error
    except (asyncpg.PostgresError, *_BROKEN) as error:
        raise _unavailable(dsn, error) from error
    try:
        yield connection
    except _BROKEN as error:
        raise _unavailable(dsn, error) from error
    except asyncpg.PostgresError as error:
        raise MigrationFailed(f"Postgres at {_address(dsn)} (DB_URL) refused: {error}") from error
    finally:
        with suppress(*_BROKEN):
            await connection.close(timeout=CLOSE_SECONDS)


@asynccontextmanager
async def _schema_lock(connection: Connection) -> AsyncIterator[None]:
    """Run the block in one transaction, alone among all that change this schema."""
    async with connection.transaction():
        await connection.execute(_LOCK, _LOCK_KEY)
        await connection.execute(_CREATE_TABLE)
        yield


async def _verified_version(connection: Connection, known: Sequence[Migration]) -> int:
    """Return the schema's version once all that was applied is found among `known`, unchanged."""
    applied = await _read_applied(connection)
    for row, migration in zip(applied, known, strict=False):
        if (row["name"], row["checksum"]) != (migration.name, migration.checksum):
            raise SchemaMismatch(
                f"the migration {row['version']:06}_{row['name']} was applied to this database, but "
                f"{migration.stem}.up.sql or .down.sql is not what it was then: put the old files back, and "
                "make a new migration with `orqestra migrate create NAME`"
            )
    if len(applied) > len(known):
        raise SchemaMismatch(
            f"the database's schema is at version {len(applied)}, this Orqestra knows only {len(known)}: "
            "upgrade it with `pip install --upgrade orqestra`"
        )
    return len(applied)


async def _read_applied(connection: Connection) -> list[asyncpg.Record]:
    if not await connection.fetchval(_TABLE_EXISTS):
        return []
    return await connection.fetch(_APPLIED)


async def _apply(connection: Connection, migration: Migration) -> None:
    await _run(connection, f"{migration.stem}.up.sql", migration.up)
    await connection.execute(_RECORD, migration.version, migration.name, migration.checksum)


async def _undo(connection: Connection, migration: Migration) -> None:
    await _run(connection, f"{migration.stem}.down.sql", migration.down)
    await connection.execute(_FORGET, migration.version)


async def _run(connection: Connection, file_name: str, sql: str) -> None:
    try:
        await connection.execute(sql)
    except asyncpg.PostgresError as error:
        position = int(error.position or 0)
        line = f":{sql.count(chr(10), 0, position) + 1}" if position else ""
        raise MigrationFailed(
            f"{file_name}{line}: {error}. It was rolled back; the schema is what it was before it"
        ) from error
    if not connection.is_in_transaction():
        raise MigrationFailed(f"{file_name} ended its transaction itself: take COMMIT and ROLLBACK out of it")


def _unavailable(dsn: str, error: BaseException) -> StorageUnavailable:
    reason = str(error) or type(error).__name__
    return StorageUnavailable(f"no connection to Postgres at {_address(dsn)} (DB_URL): {reason}")


def _parse_file_name(file_name: str) -> tuple[int, str, str]:
    found = _FILE.fullmatch(file_name)
    if found is None:
        raise InvalidInput(file_name, "is not named NNNNNN_name.up.sql or NNNNNN_name.down.sql")
    return int(found[1]), found[2], found[3]


def _address(dsn: str) -> str:
    """Return host, port and database of a connection string, never its password."""
    parts = urlsplit(dsn)
    query = parse_qs(parts.query)
    host = query.get("host", [parts.hostname or "localhost"])[0]
    return f"{host}:{parts.port or query.get('port', ['5432'])[0]}{parts.path}"
