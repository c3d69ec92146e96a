"""The server as a process: what keeps it from starting, and how it ends."""

import asyncio
import signal
import socket
from pathlib import Path

import pytest
import redis.asyncio

from orqestra.model.limits import SERVER_DESCRIPTORS
from orqestra.v1.jobs_pb2 import STATUS_COMPLETED, ListWorkersRequest
from orqestra.v1.worker_pb2 import Results
from tests.support.raw_worker import Verdict, good, held
from tests.support.server import Sql, environment_for
from tests.support.server_process import server_process

STOP_SECONDS = 5.0
BAD_SETTING = 2
# With as many connections to Postgres as there are by default.
ENOUGH = SERVER_DESCRIPTORS + 8


@pytest.fixture
def environ(database: str, redis_url: str, redis_namespace: str, tmp_path: Path) -> dict[str, str]:
    """What a server needs to run."""
    return environment_for(database, redis_url, redis_namespace, WORKFLOWS_DIR=str(tmp_path))


async def failed_start(environ: dict[str, str], code: int = 1, *, bounds: str = "") -> str:
    """Start a server that must not come up, within its time; return the one line that it tells."""
    async with server_process(environ, bounds=bounds) as server:
        async with asyncio.timeout(10):
            assert await server.end() == code
        assert "Traceback" not in "\n".join(server.text)
        assert not [event for event in server.events if "exception" in event]
        return server.text[-1]


# What keeps it from starting


async def test_postgres_that_cannot_be_reached_is_told_with_address_and_setting(environ: dict[str, str]) -> None:
    environ["DB_URL"] = "postgresql://me:secret@127.0.0.1:9/nowhere"

    told = await failed_start(environ)

    assert "DB_URL" in told
    assert "127.0.0.1:9" in told
    assert "secret" not in told


async def test_an_older_schema_is_told_with_the_command_that_mends_it(
    environ: dict[str, str], empty_database: str
) -> None:
    environ["DB_URL"] = empty_database

    told = await failed_start(environ)

    assert "version 0" in told
    assert "orqestra migrate up" in told


async def test_a_newer_schema_is_told_with_the_command_that_mends_it(environ: dict[str, str], sql: Sql) -> None:
    await sql.execute("INSERT INTO schema_migrations (version, name, checksum) VALUES (999, 'later', 'x')")

    assert "pip install --upgrade orqestra" in await failed_start(environ)


@pytest.mark.parametrize("descriptors", [16, ENOUGH - 1])
async def test_too_few_descriptors_are_told_with_what_is_needed(environ: dict[str, str], descriptors: int) -> None:
    told = await failed_start(environ, bounds=f"ulimit -n {descriptors}")

    assert f"needs at least {ENOUGH} descriptors and the hard limit is {descriptors}" in told


async def test_a_server_has_all_the_descriptors_that_it_may_have(environ: dict[str, str]) -> None:
    async with server_process(environ, bounds=f"ulimit -Sn 32 && ulimit -Hn {ENOUGH}") as server:
        caller = await server.ready()
        async with caller.worker() as worker:
            stream = await worker.open()
            job_id = await caller.submit()
            assert await stream.finish(await stream.assigned(1)) == [Verdict.VERDICT_ACCEPTED]
            assert (await caller.job(job_id)).status == STATUS_COMPLETED
        await caller.channel.close()


@pytest.mark.parametrize(("setting", "address"), [("GRPC_ADDR", ":0"), ("HTTP_ADDR", "0.0.0.0:0")])
async def test_an_address_that_others_reach_is_refused(environ: dict[str, str], setting: str, address: str) -> None:
    environ[setting] = address

    told = await failed_start(environ, BAD_SETTING)

    assert f"{setting}='{address}'" in told
    assert "ORQESTRA_INSECURE=1" in told


async def test_an_address_that_others_reach_is_allowed_on_purpose(environ: dict[str, str]) -> None:
    environ |= {"GRPC_ADDR": "0.0.0.0:0", "HTTP_ADDR": ":0", "ORQESTRA_INSECURE": "1"}

    async with server_process(environ) as server:
        caller = await server.ready()
        assert await caller.submit() > 0
        await caller.channel.close()


async def test_a_redis_that_was_never_there_is_an_error_in_the_log_and_not_the_end(environ: dict[str, str]) -> None:
    environ["REDIS_ADDR"] = "127.0.0.1:9"

    async with server_process(environ) as server:
        told = await server.event("redis is away, dispatching from Postgres")
        caller = await server.ready()
        assert (told["level"], told["setting"], told["address"]) == ("error", "REDIS_ADDR", "127.0.0.1:9")
        async with caller.worker() as worker:
            stream = await worker.open()
            job_id = await caller.submit()
            assert await stream.finish(await stream.assigned(1)) == [Verdict.VERDICT_ACCEPTED]
            assert (await caller.job(job_id)).status == STATUS_COMPLETED
        await caller.channel.close()


@pytest.mark.parametrize("setting", ["GRPC_ADDR", "HTTP_ADDR"])
async def test_a_port_in_use_is_told(environ: dict[str, str], setting: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        environ[setting] = f"127.0.0.1:{taken.getsockname()[1]}"

        told = await failed_start(environ, BAD_SETTING)

    assert environ[setting] in told
    assert setting in told


# How it ends


@pytest.mark.alone
async def test_sigterm_ends_it_soon_and_loses_nothing(environ: dict[str, str], sql: Sql) -> None:
    loop = asyncio.get_running_loop()
    async with server_process(environ) as server, server_process(environ) as other:
        caller = await server.ready()
        successor = await other.ready()
        async with caller.worker(slots=3) as worker:
            stream = await worker.open()
            await caller.submit_many(3)
            running, *done = await stream.assigned(3)
            lease = await sql.fetchval("SELECT lease_expires_at FROM sessions")
            submits = [asyncio.create_task(caller.submit(queue="burst")) for _ in range(200)]
            await submits[0]
            # Results on their way when the signal comes.
            await stream.send(results=Results(results=[good(job.attempt, stdout=b"kept") for job in done]))
            await caller.jobs.ListWorkers(ListWorkersRequest())
            begin = loop.time()
            server.send(signal.SIGTERM)

            assert (await stream.next("goodbye")).reason == "the server stops"
            assert await server.end() == 0
            assert loop.time() - begin < STOP_SECONDS
            acked = [task.result() for task in submits if not await _failed(task)]
            stored = [row["id"] for row in await sql.fetch("SELECT id FROM jobs WHERE queue = 'burst'")]
            assert set(acked) <= set(stored)
            settled = await sql.fetch("SELECT id FROM jobs WHERE state = 'completed' AND stdout = 'kept' ORDER BY id")
            assert [row["id"] for row in settled] == [job.attempt.job_id for job in done]
            # The command that runs goes on: its lease stands, and another server takes its worker over.
            row = await sql.fetchrow("SELECT closed_at, lease_expires_at FROM sessions")
            assert row is not None
            assert (row["closed_at"], row["lease_expires_at"] >= lease) == (None, True)
            worker.address = successor.address
            second = await worker.open(held=[held(running)])
            assert list(second.welcome.revoke) == []
            assert await second.finish([running]) == [Verdict.VERDICT_ACCEPTED]
        await caller.channel.close()
        await successor.channel.close()


@pytest.mark.alone
async def test_it_starts_and_ends_in_the_middle_of_messages_from_other_servers(
    environ: dict[str, str], redis_url: str, redis_namespace: str
) -> None:
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    async with redis.asyncio.Redis.from_url(redis_url) as client, server_process(environ) as server:

        async def chatter() -> None:
            while not over.is_set():
                await client.publish(f"{{{redis_namespace}}}:changed", "1,2,3")

        chatting = asyncio.create_task(chatter())
        caller = await server.ready()
        await caller.channel.close()
        begin = loop.time()
        server.send(signal.SIGTERM)
        code = await server.end()
        took = loop.time() - begin
        over.set()
        await chatting

    assert code == 0
    assert took < 2.0
    assert "stopped in the middle of a step" not in [event["event"] for event in server.events]


async def test_a_second_signal_ends_it_at_once(environ: dict[str, str], sql: Sql) -> None:
    async with server_process(environ) as server:
        caller = await server.ready()
        await caller.submit()
        async with sql.transaction():
            # Something for the shutdown to wait for.
            await sql.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
            waiting = asyncio.create_task(_failed(asyncio.create_task(caller.submit())))
            server.send(signal.SIGTERM)
            await server.event("server stopping")
            server.send(signal.SIGINT)
            async with asyncio.timeout(1):
                assert await server.end() == 1
            assert await waiting
        await caller.channel.close()


async def _failed(task: "asyncio.Task[int]") -> bool:
    await asyncio.wait([task])
    return task.exception() is not None
