"""The stack as programs use it: up with its addresses, parts killed and started again, nothing left over."""

import os
import signal
from pathlib import Path

import psutil
import pytest

from orqestra.client import Client, Job, JobSpec, new_key, shell_payload
from orqestra.embedded.stack import Stack
from orqestra.model.errors import StartFailed


async def run_job(client: Client, command: str) -> Job:
    job_id = await client.submit(JobSpec(payload=shell_payload(command), key=new_key()))
    async for _ in client.watch(job_id):
        pass
    return await client.get(job_id)


def children() -> list[psutil.Process]:
    """Return the processes of this test run that belong to a stack."""
    family = psutil.Process().children(recursive=True)
    return [each for each in family if "orqestra" in each.cmdline() and each.status() != psutil.STATUS_ZOMBIE]


async def test_parts_are_killed_and_started_again(folder: Path) -> None:
    async with Stack(folder, workers=2, slots=2, durable=False) as stack, Client(stack.grpc_addr) as client:
        assert (await run_job(client, "echo one")).output.stdout == b"one\n"
        first = {worker.name: worker.session_id for worker in await client.workers()}
        assert sorted(first) == ["worker-1", "worker-2"]

        stack.kill_worker(0)
        await stack.start_worker(0)
        second = {worker.name: worker.session_id for worker in await client.workers()}
        assert second["worker-1"] > first["worker-1"]
        assert second["worker-2"] == first["worker-2"]

        stack.kill_server()
        await stack.start_server()
        await stack.wait_for_workers(2)
        assert (await run_job(client, "echo two")).output.stdout == b"two\n"

        stack.redis.kill()
        await stack.redis.child.wait()
        await stack.redis.start()
        assert (await run_job(client, "echo three")).output.stdout == b"three\n"

        stack.postgres.kill()
        await stack.postgres.child.wait()
        await stack.postgres.start()
        assert (await run_job(client, "echo four")).output.stdout == b"four\n"

    assert children() == []


async def test_a_part_that_runs_is_not_started_twice(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orqestra.embedded.part.END_SECONDS", 0.1)
    async with Stack(folder, durable=False) as stack:
        with pytest.raises(StartFailed, match="worker-1 still runs: stop or kill it"):
            await stack.start_worker(0)
        with pytest.raises(StartFailed, match="server still runs: stop or kill it"):
            await stack.start_server()


async def test_a_part_that_does_not_come_up_is_told_with_its_words(folder: Path) -> None:
    stack = Stack(folder, durable=False, settings={"ORQESTRA_LEASE_SECONDS": "soon"})

    with pytest.raises(StartFailed, match=r"server ended with exit code 2.*ORQESTRA_LEASE_SECONDS='soon'"):
        await stack.start()

    assert children() == []
    # Nothing is held any more: the next start finds all of it free.
    async with Stack(folder, workers=0, durable=False) as mended:
        assert mended.grpc_addr.startswith("127.0.0.1:")


async def test_a_folder_in_use_is_refused_and_left_running(folder: Path) -> None:
    async with Stack(folder, workers=0, durable=False) as stack:
        with pytest.raises(StartFailed, match=f"in use by process {os.getpid()}"):
            await Stack(folder, workers=0, durable=False).start()

        assert stack.server.child.exit_code is None
        stack.server.child.send(signal.SIGTERM)
        assert await stack.server.child.wait() == 0
