"""`orqestra server` as a process of its own, known by its log, its exit code and how it takes signals."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from tests.support.server import Caller

END_SECONDS = 20.0
# What the machine's own environment says must not reach a server under test.
SETTINGS = ("DB_", "REDIS_", "GRPC_", "HTTP_", "WORKER_", "WORKFLOWS_", "ORQESTRA_")


class ServerProcess:
    """One running server process, logging JSON to stderr."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.events: list[dict[str, Any]] = []
        self.text: list[str] = []
        """Lines that are no JSON: what is told to people."""
        self._news = asyncio.Condition()
        self._reader = asyncio.create_task(self._read(), name="server log")

    async def event(self, name: str) -> dict[str, Any]:
        """Wait for a log line."""
        async with asyncio.timeout(END_SECONDS), self._news:
            while True:
                for event in self.events:
                    if event.get("event") == name:
                        return event
                assert not self._reader.done(), f"ended without {name!r}: {self.text} {self.events}"
                await self._news.wait()

    async def ready(self) -> Caller:
        """Wait until it serves; return a client of it."""
        event = await self.event("server ready")
        return Caller(f"127.0.0.1:{event['grpc']}")

    def send(self, number: int) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    async def end(self) -> int:
        """Wait for its end and return the exit code."""
        async with asyncio.timeout(END_SECONDS):
            await self._reader
            return await self._process.wait()

    async def _read(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            text = line.decode().rstrip("\n")
            async with self._news:
                try:
                    self.events.append(json.loads(text))
                except ValueError:
                    self.text.append(text)
                self._news.notify_all()
        async with self._news:
            self._news.notify_all()


@asynccontextmanager
async def server_process(environ: Mapping[str, str], *arguments: str, bounds: str = "") -> AsyncIterator[ServerProcess]:
    """Start a server with these settings and no others; it is gone at the end.

    `bounds`: commands of a shell that it is started after, such as "ulimit -n 100".
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", f'{bounds or ":"} && exec "$@"', "sh"),
        *(sys.executable, "-m", "orqestra", "server", *arguments),
        env={**inherited, "PYTHONPATH": os.pathsep.join(sys.path), **environ, "ORQESTRA_LOG_FORMAT": "json"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        limit=1 << 20,
    )
    running = ServerProcess(process)
    try:
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await running.end()
