"""`/livez`, `/readyz` and `/metrics`, served by uvicorn in the loop of the server."""

import asyncio
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from orqestra.http.metrics import CONTENT_TYPE, Metrics
from orqestra.model.errors import BadSettings

OK: Final = 200
UNAVAILABLE: Final = 503


@dataclass(frozen=True, kw_only=True)
class Readiness:
    """Whether the server can do its work, and what each part says."""

    ready: bool
    parts: Mapping[str, str]


class HttpServer:
    """Listens and answers health checks and scrapes."""

    def __init__(self, readiness: Callable[[], Readiness], metrics: Metrics) -> None:
        self._readiness = readiness
        self._metrics = metrics
        routes = [
            Route("/livez", self._livez),
            Route("/readyz", self._readyz),
            Route("/metrics", self._scrape),
        ]
        config = uvicorn.Config(
            Starlette(routes=routes), log_config=None, access_log=False, lifespan="off", timeout_keep_alive=5
        )
        self._server = _Uvicorn(config)
        self._task: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen and return the port; raises BadSettings if that is not possible."""
        try:
            listener = socket.create_server(
                (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=128
            )
        except OSError as error:
            raise BadSettings(f"HTTP_ADDR='{host}:{port}' cannot be listened on: {error.strerror}") from error
        bound: int = listener.getsockname()[1]
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]), name="http")
        return bound

    async def stop(self) -> None:
        """Stop listening and end open connections."""
        self._server.should_exit = True
        self._server.force_exit = True
        if self._task is not None:
            await self._task

    async def _livez(self, _request: Request) -> JSONResponse:
        return JSONResponse({"live": True})

    async def _readyz(self, _request: Request) -> JSONResponse:
        readiness = self._readiness()
        return JSONResponse(
            {"ready": readiness.ready, "parts": dict(readiness.parts)},
            status_code=OK if readiness.ready else UNAVAILABLE,
        )

    async def _scrape(self, _request: Request) -> Response:
        return Response(self._metrics.text(), headers={"Content-Type": CONTENT_TYPE})


class _Uvicorn(uvicorn.Server):
    """Signals belong to the server as a whole."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
