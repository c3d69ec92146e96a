"""`orqestra dev` from its start to its end, however that comes, with real processes and signals."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import psutil
import pytest

from orqestra.client import Client, Job, JobSpec, new_key, shell_payload
from tests.support.dev import FREE_PORTS, Dev, running_dev
from tests.support.processes import gone

FIRST_READY_SECONDS = 15.0
LATER_READY_SECONDS = 5.0
STOP_SECONDS = 10.0


async def run_job(address: str, command: str) -> Job:
    """Submit a command and return the job once it has ended."""
    async with Client(address) as client:
        job_id = await client.submit(JobSpec(payload=shell_payload(command), key=new_key()))
        async for _ in client.watch(job_id):
            pass
        return await client.get(job_id)


async def start_job(address: str, command: str) -> None:
    """Submit a command and return once it runs."""
    async with Client(address) as client:
        job_id = await client.submit(JobSpec(payload=shell_payload(command), key=new_key()))
        async for job in client.watch(job_id):
            if job.status == "running":
                return


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.05)


async def is_all_gone(family: list[psutil.Process]) -> bool:
    return all(await asyncio.gather(*(gone(process.pid, 2.0) for process in family)))


async def refused(folder: Path, *arguments: str, ports: Sequence[str] = FREE_PORTS) -> tuple[int, Dev]:
    """Run a `dev` that is expected to end by itself; return its exit code."""
    async with running_dev(folder, *arguments, ports=ports) as dev:
        code = await dev.end()
        assert "Traceback" not in dev.errors
        return code, dev


@pytest.mark.alone
async def test_a_job_runs_and_outlives_a_restart(folder: Path) -> None:
    begin = time.monotonic()
    async with running_dev(folder, "--workers", "2", "--slots", "3") as dev:
        address = await dev.ready()
        assert time.monotonic() - begin < FIRST_READY_SECONDS
        job = await run_job(address, "echo hello world")
        assert (job.status, job.exit_code, job.output.stdout) == ("completed", 0, b"hello world\n")
        async with Client(address) as client:
            assert sorted((each.name, each.slots) for each in await client.workers()) == [
                ("worker-1", 3),
                ("worker-2", 3),
            ]
        family = dev.family()

        dev.send(signal.SIGINT)
        begin = time.monotonic()
        assert await dev.end() == 0
        assert time.monotonic() - begin < STOP_SECONDS
        assert await is_all_gone(family)
        assert await dev.rest_of_stdout() == ""
        assert not (folder / ".orqestra" / "env").exists()

    begin = time.monotonic()
    async with running_dev(folder) as dev:
        address = await dev.ready()
        assert time.monotonic() - begin < LATER_READY_SECONDS
        async with Client(address) as client:
            kept = await client.get(job.id)
        assert kept == job

        dev.send(signal.SIGTERM)
        assert await dev.end() == 0


async def test_other_programs_find_the_services_in_the_env_file(folder: Path) -> None:
    async with running_dev(folder, "--workers", "0", "--data-dir", "data") as dev:
        address = await dev.ready()

        env_file = folder / "data" / "env"
        assert env_file.stat().st_mode & 0o777 == 0o600
        shell = f". {env_file} && echo $GRPC_ADDR $DB_URL $REDIS_ADDR"
        told = await asyncio.create_subprocess_exec("sh", "-c", shell, stdout=asyncio.subprocess.PIPE)
        output, _ = await told.communicate()

    grpc_address, db_url, redis_address = output.decode().split()
    assert grpc_address == address
    assert db_url.startswith("postgresql://orqestra@/orqestra?host=")
    assert redis_address.startswith("unix:///")


@pytest.mark.alone
async def test_it_is_stopped_in_time_while_a_command_will_not_end(folder: Path) -> None:
    async with running_dev(folder) as dev:
        address = await dev.ready()
        await start_job(address, "trap '' TERM; while :; do sleep 1; done")
        family = dev.family()

        dev.send(signal.SIGTERM)
        begin = time.monotonic()

        assert await dev.end() == 0
        assert time.monotonic() - begin < STOP_SECONDS
        assert await is_all_gone(family)


@pytest.mark.alone
async def test_a_second_signal_ends_it_at_once(folder: Path) -> None:
    async with running_dev(folder) as dev:
        address = await dev.ready()
        await start_job(address, "trap '' TERM; sleep 60; sleep 60")
        family = dev.family()

        dev.send(signal.SIGINT)
        # The worker was told: the first signal is done with, and cannot swallow the second.
        await until(lambda: said(dev, "draining"))
        dev.send(signal.SIGINT)
        begin = time.monotonic()

        assert await dev.end() == 0
        assert time.monotonic() - begin < STOP_SECONDS / 3
        assert await is_all_gone(family)


async def test_a_signal_while_it_starts_stops_it(folder: Path) -> None:
    async with running_dev(folder) as dev:
        await until(lambda: said(dev, "schema is current"))
        family = dev.family()

        dev.send(signal.SIGINT)

        assert await dev.end() == 0
        assert await is_all_gone(family)
        assert await dev.rest_of_stdout() == ""


async def test_a_second_one_on_the_same_folder_is_refused(folder: Path) -> None:
    async with running_dev(folder, "--workers", "0") as dev:
        await dev.ready()

        code, other = await refused(folder, "--workers", "0")

        assert code == 1
        assert f".orqestra is in use by process {dev.process.pid}: stop that one first" in other.errors
        dev.send(signal.SIGTERM)
        assert await dev.end() == 0


async def test_what_it_started_ends_with_it_when_it_is_killed(folder: Path) -> None:
    async with running_dev(folder) as dev:
        address = await dev.ready()
        await run_job(address, "true")
        family = dev.family()
        killed = dev.process.pid

        dev.send(signal.SIGKILL)
        assert await dev.end() == -signal.SIGKILL
        assert await is_all_gone(family)

    async with running_dev(folder) as dev:
        address = await dev.ready()
        assert f"pid={killed}" in dev.errors
        assert (await run_job(address, "true")).status == "completed"


async def test_a_server_and_a_worker_that_end_are_started_again(folder: Path) -> None:
    async with running_dev(folder) as dev:
        address = await dev.ready()
        for name in ("server", "worker"):
            before = dev.named("-m", "orqestra", name)

            before.kill()
            assert await gone(before.pid)

            assert (await run_job(address, "echo again")).output.stdout == b"again\n"
            assert dev.named("-m", "orqestra", name).pid != before.pid
        assert await until_said(dev, "process ended; starting it again", times=2)


async def test_a_redis_that_ends_is_started_again(folder: Path) -> None:
    async with running_dev(folder) as dev:
        address = await dev.ready()
        redis = next(each for each in dev.family() if "redis" in each.name() or "valkey" in each.name())

        redis.kill()

        assert (await run_job(address, "echo again")).output.stdout == b"again\n"
        assert await until_said(dev, "Redis ended; starting it again")


async def test_a_postgres_that_ends_ends_it_with_a_reason(folder: Path) -> None:
    async with running_dev(folder) as dev:
        await dev.ready()
        family = dev.family()

        dev.named("-D", str(folder / ".orqestra" / "postgres" / "data")).kill()

        assert await dev.end() == 1
        assert "Error: Postgres ended with exit code -9; its log: " in dev.errors
        assert await is_all_gone(family)


async def test_a_half_written_folder_is_told_and_left_alone(folder: Path) -> None:
    data = folder / ".orqestra" / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "base").write_text("precious")

    code, dev = await refused(folder)

    assert code == 1
    assert f"{data} has no PG_VERSION" in dev.errors
    assert "it holds base. Nothing was changed." in dev.errors
    assert (data / "base").read_text() == "precious"


async def test_a_port_that_is_taken_is_told_with_its_setting(folder: Path) -> None:
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    async with taken:
        code, dev = await refused(folder, ports=("--grpc-addr", "127.0.0.1:0", "--http-addr", f"127.0.0.1:{port}"))

    assert code == 1
    assert f"HTTP_ADDR='127.0.0.1:{port}' can't be used: another process listens there" in dev.errors


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--workers", "-1"], "-1 is not in the range 0<=x<=100"),
        (["--workers", "many"], "'many' is not a valid integer"),
        (["--slots", "0"], "0 is not in the range 1<=x<=10000"),
        (["--grpc-addr", "nonsense"], "GRPC_ADDR='nonsense' (the command line) is not allowed"),
        (["--grpc-addr", "0.0.0.0:0"], "can be reached from other machines"),
        (["--data-dir", "stderr"], "'stderr' is a file"),
    ],
)
async def test_bad_input_is_named(folder: Path, arguments: list[str], told: str) -> None:
    code, dev = await refused(folder, *arguments)

    assert code == 2
    assert told in dev.errors
    assert not (folder / ".orqestra").exists()


async def said(dev: Dev, words: str, times: int = 1) -> bool:
    return dev.errors.count(words) >= times


async def until_said(dev: Dev, words: str, times: int = 1) -> bool:
    await until(lambda: said(dev, words, times))
    return True
