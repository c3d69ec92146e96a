"""Whether a server says that it is well, on both doors, exactly while it is."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from orqestra.engine.leases import Leases
from orqestra.v1 import jobs_pb2
from tests.support.lossy_postgres import LossyPostgres, lossy_postgres
from tests.support.server import RunningServer, running_server, settings_for

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICES = ("", "orqestra.v1.Jobs", "orqestra.v1.Workflows", "orqestra.v1.WorkerService")


async def ask(server: RunningServer, path: str, method: str = "GET") -> tuple[int, Any]:
    """Ask over HTTP; return the status and the document."""
    host, port = server.http.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: {server.http}\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body) if body.startswith(b"{") else body


def watch_health(server: RunningServer, service: str = "") -> Any:
    """Return the stream of a service's health."""
    watch = server.channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    return watch(health_pb2.HealthCheckRequest(service=service))


@pytest.mark.asyncio(loop_scope="module")
async def test_a_server_that_works_is_live_ready_and_serving(module_server: RunningServer) -> None:
    assert await ask(module_server, "/livez") == (200, {"live": True})
    assert await ask(module_server, "/readyz") == (200, {"ready": True, "parts": {}})
    for service in SERVICES:
        call = watch_health(module_server, service)
        assert (await call.read()).status == SERVING
        call.cancel()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("path", "method", "status"), [("/", "GET", 404), ("/readyz", "POST", 405)])
async def test_there_is_nothing_else_on_the_http_door(
    module_server: RunningServer, path: str, method: str, status: int
) -> None:
    assert (await ask(module_server, path, method))[0] == status


@pytest.mark.asyncio(loop_scope="module")
async def test_reflection_tells_all_services(module_server: RunningServer) -> None:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(module_server.channel)
    call = stub.ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    answer = await call.read()
    await call.done_writing()

    assert {each.name for each in answer.list_services_response.service} >= set(SERVICES[1:])


@asynccontextmanager
async def frail_server(
    database: str, redis_url: str, redis_namespace: str
) -> AsyncIterator[tuple[RunningServer, LossyPostgres]]:
    """Yield a server and its way to Postgres, which can be closed and opened again."""
    with tempfile.TemporaryDirectory(prefix="orqestra-health-") as folder:
        async with (
            lossy_postgres(database, Path(folder)) as lossy,
            running_server(settings_for(lossy.url, redis_url, redis_namespace)) as server,
        ):
            yield server, lossy


async def test_a_server_that_makes_no_progress_says_so_until_it_does_again(
    database: str, redis_url: str, redis_namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Leases, "max_silence_seconds", 1.5)
    async with frail_server(database, redis_url, redis_namespace) as (server, lossy):
        call = watch_health(server)
        assert (await call.read()).status == SERVING

        await lossy.close()
        async with asyncio.timeout(5):
            assert (await call.read()).status == NOT_SERVING
        status, document = await ask(server, "/readyz")
        assert (status, document["ready"]) == (503, False)
        assert document["parts"]["leases"] == "no progress"
        assert await ask(server, "/livez") == (200, {"live": True})

        await lossy.open()
        async with asyncio.timeout(8):
            assert (await call.read()).status == SERVING
        assert (await ask(server, "/readyz"))[0] == 200
        call.cancel()


async def test_a_server_that_stops_is_told_before_it_is_gone(server: RunningServer) -> None:
    call = watch_health(server)
    assert (await call.read()).status == SERVING

    server.server.stop()

    async with asyncio.timeout(2):
        assert (await call.read()).status == NOT_SERVING


async def test_a_worker_is_listed_while_it_is_connected(server: RunningServer) -> None:
    async with server.worker(slots=4, name="here") as worker:
        stream = await worker.open()
        await server.submit_many(2)
        await stream.assigned(2)

        [listed] = (await server.jobs.ListWorkers(jobs_pb2.ListWorkersRequest())).workers

        assert (listed.name, listed.slots, listed.running) == ("here", 4, 2)
        assert listed.lease_expires_at.ToDatetime() > listed.connected_at.ToDatetime()
        assert listed.server
