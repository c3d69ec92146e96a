"""How embedded services and other children end: with us, before us, after us; and who holds their folder."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orqestra.embedded.directory import DirectoryLock, socket_directory
from orqestra.embedded.process import Child, Program
from orqestra.embedded.redis import EmbeddedRedis
from orqestra.model.errors import StartFailed
from tests.support.databases import execute, scratch_postgres
from tests.support.processes import gone

# Starts both services in the folder named by its argument, says their pids, and waits to be killed.
PARENT = """
import asyncio, json, sys
from pathlib import Path
from orqestra.embedded.postgres import EmbeddedPostgres
from orqestra.embedded.redis import EmbeddedRedis

async def main():
    folder = Path(sys.argv[1])
    postgres = EmbeddedPostgres(folder / "postgres", durable=False)
    async with postgres, EmbeddedRedis(folder / "redis") as server:
        print(json.dumps([postgres.child.pid, server.child.pid]), flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_both_end_with_a_parent_that_is_killed_and_start_again(folder: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PARENT, str(folder)),
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert parent.stdout is not None
    pids = json.loads(await parent.stdout.readline())

    parent.kill()
    await parent.wait()

    assert [await gone(pid) for pid in pids] == [True, True]
    async with scratch_postgres(folder) as postgres, EmbeddedRedis(folder / "redis"):
        assert await execute(postgres, "SELECT 1") == 1


async def test_servers_that_outlived_their_parent_are_stopped_and_followed(folder: Path) -> None:
    old_postgres, old_redis = scratch_postgres(folder), EmbeddedRedis(folder / "redis")
    await old_postgres.start()
    await old_redis.start()
    await execute(old_postgres, "CREATE TABLE kept AS SELECT 1 AS x")

    async with scratch_postgres(folder) as postgres, EmbeddedRedis(folder / "redis"):
        assert old_postgres.child.exit_code == 0
        assert old_redis.child.exit_code == 0
        assert await execute(postgres, "SELECT count(*) FROM kept") == 1


async def test_a_pid_file_that_names_another_process_harms_nobody(folder: Path) -> None:
    async with scratch_postgres(folder) as postgres, EmbeddedRedis(folder / "redis"):
        data = postgres.data
    bystander = await asyncio.create_subprocess_exec("sleep", "60")
    try:
        (folder / "redis" / "redis.pid").write_text(f"{bystander.pid}\n")
        (data / "postmaster.pid").write_text(f"{bystander.pid}\n{data}\n1\n5432\n{data}\n\n0 0\nready\n")

        async with scratch_postgres(folder), EmbeddedRedis(folder / "redis"):
            assert bystander.returncode is None
    finally:
        bystander.kill()
        assert await bystander.wait() == -signal.SIGKILL


# The folder


def test_a_folder_is_held_by_one_process(folder: Path) -> None:
    first, second = DirectoryLock(folder), DirectoryLock(folder)
    assert first.acquire() is None

    with pytest.raises(StartFailed, match=f"{folder} is in use by process {os.getpid()}: stop that one"):
        second.acquire()

    first.release()
    assert second.acquire() is None
    second.release()


def test_a_lock_left_by_a_dead_process_is_taken_and_told(folder: Path) -> None:
    (folder / "orqestra.lock").write_text("4194303\n")

    lock = DirectoryLock(folder)

    assert lock.acquire() == 4194303
    lock.release()


async def test_a_path_too_long_for_a_socket_gets_a_short_one_meanwhile(folder: Path) -> None:
    deep = folder / ("d" * 100)
    async with scratch_postgres(deep) as postgres, EmbeddedRedis(deep / "redis") as server:
        assert await execute(postgres, "SELECT 1") == 1
        sockets = Path(server.address.removeprefix("unix://")).parent
        assert sockets.stat().st_mode & 0o777 == 0o700
        assert not sockets.is_relative_to(deep)

    assert not sockets.exists()


def test_a_short_folder_that_others_may_enter_is_refused(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    deep = tmp_path / ("d" * 100)
    short = socket_directory(deep, "redis.sock")
    short.chmod(0o755)

    with pytest.raises(StartFailed, match="not a directory of ours alone"):
        socket_directory(deep, "redis.sock")


def test_a_machine_with_long_paths_only_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("t" * 100)))

    with pytest.raises(StartFailed, match="107 bytes: name a shorter data directory or TMPDIR"):
        socket_directory(tmp_path / ("d" * 100), "redis.sock")


# Children


def shell(command: str) -> Program:
    return Program(name="shell", argv=("/bin/sh", "-c", command), directory=Path.cwd(), environment=dict(os.environ))


async def test_any_number_of_tasks_may_wait_for_a_child() -> None:
    child = Child(shell("exit 7"), subprocess.DEVNULL)

    assert set(await asyncio.gather(child.wait(), child.wait(), child.wait())) == {7}
    assert await child.stop((signal.SIGTERM, 1.0)) == 7


async def test_a_child_that_does_not_listen_is_killed_with_what_it_started() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as output:
        child = Child(shell("trap '' TERM; setsid sleep 60 & echo $!; wait; wait"), writer)
        os.close(writer)
        grandchild = int(await asyncio.to_thread(output.readline))

        assert await child.stop((signal.SIGTERM, 0.2)) == -signal.SIGKILL
        assert await gone(grandchild)


async def test_a_program_that_does_not_exist_ends_at_once(folder: Path) -> None:
    log = folder / "log"
    with log.open("wb") as output:
        child = Child(
            Program(name="none", argv=("/no/such/program",), directory=folder, environment={}),
            output.fileno(),
        )
        assert await child.wait() == 1

    assert "/no/such/program" in log.read_text() or "No such file" in log.read_text()
