"""A Redis that is there but refuses: whatever it answers, jobs run, and it is used again once it serves."""

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import redis.asyncio

from orqestra.embedded.redis import EmbeddedRedis
from orqestra.v1.jobs_pb2 import STATUS_COMPLETED
from tests.support.metrics import scrape
from tests.support.raw_worker import Verdict
from tests.support.server import RunningServer, environment_for, running_server, settings_for
from tests.support.server_process import server_process

WAIT_SECONDS = 10.0
Command = Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What makes Redis refuse, what ends that, and a word of its answer."""

    begin: Sequence[Command]
    end: Sequence[Command]
    says: str


FAULTS = {
    "full": Fault(
        begin=[("CONFIG", "SET", "maxmemory", "1")], end=[("CONFIG", "SET", "maxmemory", "0")], says="maxmemory"
    ),
    "a replica": Fault(begin=[("REPLICAOF", "127.0.0.1", "1")], end=[("REPLICAOF", "NO", "ONE")], says="read only"),
    "no snapshots": Fault(
        begin=[("CONFIG", "SET", "save", "3600 1"), ("CONFIG", "SET", "dir", "/proc"), ("BGSAVE",)],
        end=[("CONFIG", "SET", "stop-writes-on-bgsave-error", "no")],
        says="RDB",
    ),
    "a password": Fault(
        # Connections that are there stay logged in.
        begin=[("CONFIG", "SET", "requirepass", "secret"), ("CLIENT", "KILL", "TYPE", "normal")],
        end=[("CONFIG", "SET", "requirepass", "")],
        says="authenticated",
    ),
}


@pytest_asyncio.fixture
async def own_redis(folder: Path) -> AsyncIterator[EmbeddedRedis]:
    """A Redis of this test alone."""
    async with EmbeddedRedis(folder / "redis") as server:
        yield server


@pytest_asyncio.fixture
async def operator(own_redis: EmbeddedRedis) -> AsyncIterator[Any]:
    """A connection that is logged in before anything happens."""
    async with redis.asyncio.Redis.from_url(own_redis.address, single_connection_client=True) as client:
        yield client


@pytest_asyncio.fixture
async def served(database: str, own_redis: EmbeddedRedis, redis_namespace: str) -> AsyncIterator[RunningServer]:
    """A server on that Redis."""
    async with running_server(settings_for(database, own_redis.address, redis_namespace)) as server:
        yield server


async def redis_part(server: RunningServer) -> str | None:
    """Return what the server says of Redis; None while it serves."""

    def read() -> str | None:
        with urllib.request.urlopen(f"http://{server.http}/readyz", timeout=5) as answer:
            part: str | None = json.load(answer)["parts"].get("redis")
            return part

    return await asyncio.to_thread(read)


async def until_redis_serves(server: RunningServer) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while await redis_part(server) is not None:
            await asyncio.sleep(0.05)


async def run_one(server: RunningServer) -> None:
    """A job is taken, runs and ends."""
    async with server.worker(slots=2) as worker:
        stream = await worker.open()
        job_id = await server.submit()
        assert await stream.finish(await stream.assigned(1)) == [Verdict.VERDICT_ACCEPTED]
        assert (await server.job(job_id)).status == STATUS_COMPLETED


async def check_no_loop_failed(server: RunningServer) -> None:
    failed = {name: count for name, count in (await scrape(server.http)).items() if "service_errors" in name and count}
    assert failed == {}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_redis_that_refuses_counts_as_away(served: RunningServer, operator: Any, name: str) -> None:
    fault = FAULTS[name]
    await run_one(served)

    for command in fault.begin:
        await operator.execute_command(*command)
    await run_one(served)
    async with asyncio.timeout(WAIT_SECONDS):
        while fault.says not in (await redis_part(served) or ""):
            await served.submit()
            await asyncio.sleep(0.05)
    assert (await scrape(served.http))["orqestra_redis_up"] == 0
    await run_all_that_waits(served)

    for command in fault.end:
        await operator.execute_command(*command)
    await until_redis_serves(served)
    await run_one(served)
    samples = await scrape(served.http)
    assert samples["orqestra_redis_up"] == 1
    assert samples["orqestra_repairs_total{redis_rebuilt}"] >= 1
    await check_no_loop_failed(served)


async def run_all_that_waits(server: RunningServer) -> None:
    """Run what was submitted while Redis was made to refuse, and see that nothing is left."""
    async with server.worker(slots=100) as worker:
        stream = await worker.open()
        last = await server.submit()
        done: set[int] = set()
        while last not in done:
            jobs = (await stream.next("assign")).jobs
            await stream.finish(jobs)
            done.update(job.attempt.job_id for job in jobs)


@pytest.mark.parametrize(
    "command", [("SCRIPT", "FLUSH"), ("CLIENT", "KILL", "TYPE", "normal"), ("CLIENT", "KILL", "TYPE", "pubsub")]
)
async def test_what_redis_forgets_is_told_again(served: RunningServer, operator: Any, command: Command) -> None:
    await run_one(served)

    for _ in range(3):
        await operator.execute_command(*command)
        await run_one(served)

    await until_redis_serves(served)
    await check_no_loop_failed(served)


async def test_a_policy_that_evicts_is_warned_of_at_the_start_and_when_redis_comes_back(
    database: str, own_redis: EmbeddedRedis, operator: Any, redis_namespace: str, tmp_path: Path
) -> None:
    await operator.config_set("maxmemory-policy", "allkeys-lru")
    environ = environment_for(database, own_redis.address, redis_namespace, WORKFLOWS_DIR=str(tmp_path))
    warning = "redis may evict hints; set maxmemory-policy noeviction"
    async with server_process(environ) as server:
        caller = await server.ready()
        told = await server.event(warning)
        assert (told["level"], told["policy"]) == ("warning", "allkeys-lru")

        server.events.clear()
        await operator.flushall()
        await server.event(warning)
        await caller.channel.close()


async def test_a_policy_that_keeps_everything_is_not_worth_a_word(
    database: str, own_redis: EmbeddedRedis, redis_namespace: str, tmp_path: Path
) -> None:
    environ = environment_for(database, own_redis.address, redis_namespace, WORKFLOWS_DIR=str(tmp_path))
    async with server_process(environ) as server:
        caller = await server.ready()
        assert [event["event"] for event in server.events if event["level"] != "info"] == []
        await caller.channel.close()


@asynccontextmanager
async def redis_that_says(line: str) -> AsyncIterator[str]:
    """Yield the address of something that gives every command the same answer."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Not parsed: an answer for each array that begins, as clients pipeline their greeting.
        while data := await reader.read(65536):
            writer.write(f"-{line}\r\n".encode() * data.count(b"*"))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}"
    finally:
        server.close()


@pytest.mark.parametrize(
    "line",
    [
        "LOADING Redis is loading the dataset in memory",
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "NOPERM this user has no permissions to run the 'info' command",
        "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    ],
)
async def test_whatever_error_it_answers_it_does_not_serve(database: str, redis_namespace: str, line: str) -> None:
    async with (
        redis_that_says(line) as address,
        running_server(settings_for(database, address, redis_namespace)) as server,
    ):
        await run_one(server)

        assert "REDIS_ADDR" in (await redis_part(server) or "")
        await check_no_loop_failed(server)
