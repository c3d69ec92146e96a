"""Concurrent submits through the client, on their shared stream to a real server, and what ends that stream."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from orqestra.client import Client, JobSpec, JobType
from orqestra.client.encode import EncodedJob, JobEncoder
from orqestra.client.intake import Intake
from orqestra.client.patience import Caller, Patience
from orqestra.client.submit_calls import SubmitCalls
from orqestra.model.errors import InvalidInput, Unavailable
from orqestra.settings import Settings
from orqestra.v1 import jobs_pb2
from tests.chaos.proxy import Proxy, Target
from tests.support import server as support
from tests.support.server import RunningServer, Sql, environment_for, running_server
from tests.support.server_process import server_process
from tests.support.stalling import submits_blocked

CALLERS = 256


@pytest.fixture
def environ(database: str, redis_url: str, redis_namespace: str, tmp_path: Path) -> dict[str, str]:
    """What a server needs to run."""
    return environment_for(database, redis_url, redis_namespace, WORKFLOWS_DIR=str(tmp_path))


def job(name: str, *, key: bool = True) -> JobSpec:
    return JobSpec(type=JobType.NOOP, key=name if key else None, tags=(name,))


async def tags_of(sql: Sql, ids: list[int]) -> list[str]:
    rows = await sql.fetch("SELECT id, tags[1] AS tag FROM jobs WHERE id = ANY($1)", ids)
    tags = {row["id"]: row["tag"] for row in rows}
    return [tags[job_id] for job_id in ids]


def port_of(server: support.Caller) -> int:
    return int(server.address.rpartition(":")[2])


@asynccontextmanager
async def proxied(ports: Sequence[int]) -> AsyncIterator[Proxy]:
    """A link to the first of these ports that accepts: they are asked for each new connection."""
    proxy = Proxy(lambda: [Target(port=port) for port in ports])
    await proxy.open()
    try:
        yield proxy
    finally:
        await proxy.close()


@pytest.mark.parametrize("key", [True, False])
async def test_every_caller_gets_the_id_of_its_own_job(server: RunningServer, sql: Sql, *, key: bool) -> None:
    names = [f"job-{number}" for number in range(20 * CALLERS)]
    ids = dict.fromkeys(names, 0)
    left = iter(names)

    async with Client(server.address) as client:

        async def call() -> None:
            for name in left:
                ids[name] = await client.submit(job(name, key=key))

        await asyncio.gather(*(call() for _ in range(CALLERS)))

    assert await tags_of(sql, list(ids.values())) == names
    assert await sql.fetchval("SELECT count(*) FROM jobs") == len(names)


async def test_only_the_callers_of_bad_jobs_are_refused_and_told_what_of_their_own_job(
    server: RunningServer, sql: Sql
) -> None:
    """Jobs that the client lets pass and the server refuses, as where their versions differ."""
    good = [JobEncoder().encode(job(f"{number}")) for number in range(CALLERS)]
    bad = EncodedJob(shape=jobs_pb2.JobSpec(type="nonsense").SerializeToString(), payload=b"{}", key="bad")
    async with grpc.aio.insecure_channel(server.address) as channel:
        intake = Intake(SubmitCalls(channel), Caller(server.address, Patience()))
        jobs = [*good[:100], bad, *good[100:200], bad, *good[200:]]
        answers = await asyncio.gather(*(intake.submit(each) for each in jobs), return_exceptions=True)
        await intake.close()

    refused = [answer for answer in answers if isinstance(answer, BaseException)]
    assert [type(each) for each in refused] == [InvalidInput] * 2
    assert [answers[100], answers[201]] == refused
    assert str(refused[0]).startswith("type: 'nonsense'")
    assert await sql.fetchval("SELECT count(*) FROM jobs") == CALLERS


async def test_a_caller_that_gives_up_is_no_matter_of_the_others(server: RunningServer, sql: Sql) -> None:
    async with Client(server.address) as client:
        async with sql.transaction():
            await sql.execute("LOCK TABLE jobs IN SHARE MODE")
            callers = [asyncio.create_task(client.submit(job(f"{number}", key=False))) for number in range(10)]
            await submits_blocked(sql)
            callers[3].cancel()
            late = [asyncio.create_task(client.submit(job("late", key=False))) for _ in range(10)]
        answers = await asyncio.gather(*callers, *late, return_exceptions=True)

    assert [at for at, answer in enumerate(answers) if not isinstance(answer, int)] == [3]


async def test_an_answer_that_is_lost_is_asked_for_again_with_a_key_and_told_without_one(
    server: RunningServer, sql: Sql
) -> None:
    async with proxied([port_of(server)]) as proxy, Client(f"127.0.0.1:{proxy.port}") as client:
        await client.submit(job("first"))
        lost = proxy.lose_reply()
        ids = await asyncio.gather(*(client.submit(job(f"key-{number}")) for number in range(CALLERS)))
        assert lost.is_set()
        proxy.lose_reply()
        with pytest.raises(Unavailable):
            await client.submit(job("none", key=False))

    assert await tags_of(sql, ids) == [f"key-{number}" for number in range(CALLERS)]
    assert await sql.fetchval("SELECT count(*) FROM jobs WHERE idempotency_key IS NOT NULL") == CALLERS + 1
    assert await sql.fetchval("SELECT count(*) FROM jobs WHERE idempotency_key IS NULL") <= 1


async def test_a_server_that_is_killed_under_load_leaves_each_job_with_a_key_stored_once(
    environ: dict[str, str], sql: Sql
) -> None:
    names = iter(f"job-{number}" for number in range(40 * CALLERS))
    ids: dict[str, int] = {}

    async with server_process(environ) as first, server_process(environ) as second:
        ports = [port_of(await server.ready()) for server in (first, second)]
        async with proxied(ports) as proxy, Client(f"127.0.0.1:{proxy.port}") as client:

            async def call() -> None:
                for name in names:
                    ids[name] = await client.submit(job(name))
                    if len(ids) == 10 * CALLERS:
                        first.send(signal.SIGKILL)

            await asyncio.gather(*(call() for _ in range(CALLERS)))
        await first.end()

    assert await tags_of(sql, list(ids.values())) == list(ids)
    assert await sql.fetchval("SELECT count(*) FROM jobs") == len(ids) == 40 * CALLERS


async def test_a_server_that_stops_answers_what_it_has_taken(server_settings: Settings, sql: Sql) -> None:
    async with running_server(server_settings) as server, Client(server.address) as client:
        async with sql.transaction():
            await sql.execute("LOCK TABLE jobs IN SHARE MODE")
            caller = asyncio.create_task(client.submit(job("a", key=False)))
            await submits_blocked(sql)
            server.server.stop()
        job_id = await caller

    assert await tags_of(sql, [job_id]) == ["a"]


async def test_a_loop_that_stood_still_misses_no_broken_connection(environ: dict[str, str], sql: Sql) -> None:
    """As that of a SyncClient between two calls. Without a key a stream that broke unheard would be an error."""
    async with server_process(environ) as first, server_process(environ) as second:
        addresses = [(await server.ready()).address for server in (first, second)]
        async with grpc.aio.insecure_channel(f"ipv4:{','.join(addresses)}") as channel:
            intake = Intake(SubmitCalls(channel), Caller("both", Patience()))
            before = await intake.submit(JobEncoder().encode(job("before", key=False)))
            first.send(signal.SIGKILL)
            stand_still(channel)
            after = await intake.submit(JobEncoder().encode(job("after", key=False)))
            await intake.close()

    assert await tags_of(sql, [before, after]) == ["before", "after"]


def stand_still(channel: grpc.aio.Channel) -> None:
    """Hold up the loop until the connection of a channel has ended."""
    until = time.monotonic() + 10
    while channel.get_state() is grpc.ChannelConnectivity.READY:
        assert time.monotonic() < until
