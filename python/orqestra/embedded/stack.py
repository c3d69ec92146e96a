"""The whole system in one folder: Postgres, Redis, a server and workers, as the processes they always are.

    async with Stack(Path(".orqestra"), workers=2, slots=8) as stack:
        async with Client(stack.grpc_addr) as client: ...

Layout of the folder: `orqestra.lock` (who holds it), `env` (the settings of the running stack, for other
programs), `postgres/` and `redis/`, `worker-N/` (a worker's state), `logs/`.
"""

import asyncio
import os
import secrets
import shlex
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, NoReturn, Self

from orqestra.client import Client
from orqestra.embedded.address import Reservation
from orqestra.embedded.directory import DirectoryLock
from orqestra.embedded.leftover import stop_leftover
from orqestra.embedded.part import LineSink, Part
from orqestra.embedded.postgres import EmbeddedPostgres
from orqestra.embedded.process import Program
from orqestra.embedded.redis import EmbeddedRedis
from orqestra.log import get_logger
from orqestra.model.errors import StartFailed, Unavailable
from orqestra.setting_kinds import Address, parse_address
from orqestra.store import migrations

FREE_ADDRESS: Final = "127.0.0.1:0"
READY_SECONDS: Final = 30.0
POLL_SECONDS: Final = 0.05
PROBE_SECONDS: Final = 2.0

# Everything ends within 10 s: workers first, since they hand back to the server what they can't finish.
STOP_SECONDS: Final = 9.5
WORKER_STOP_SECONDS: Final = 6.0
DATABASE_STOP_SECONDS: Final = 1.5
# All is to end with us: commands do not wait for another worker.
ORPHAN_SECONDS: Final = 5
# A command gets this to end by itself, then its grace of 5 s, before the worker is killed.
DRAIN_SECONDS: Final = 0.5

log = get_logger(__name__)


@dataclass(eq=False)
class Stack:
    """Services, server and workers on the data in `data_dir`, which this process holds meanwhile.

    `settings` are further variables for the server and the workers; `output` gets their lines, which
    otherwise go to `logs/`. A port of 0 becomes a free one. Nothing is started again by itself, unless
    `supervise` runs.
    """

    data_dir: Path
    _: KW_ONLY
    workers: int = 1
    slots: int | None = None
    grpc_address: str = FREE_ADDRESS
    http_address: str = FREE_ADDRESS
    durable: bool = True
    settings: Mapping[str, str] = field(default_factory=dict)
    worker_arguments: tuple[str, ...] = ()
    output: LineSink | None = None

    def __post_init__(self) -> None:
        self.data_dir = self.data_dir.absolute()
        self.postgres = EmbeddedPostgres(self.data_dir / "postgres", durable=self.durable)
        self.redis = EmbeddedRedis(self.data_dir / "redis", password=secrets.token_hex(16))
        self._lock = DirectoryLock(self.data_dir)
        self._addresses: dict[str, Reservation] = {}
        self._server: Part | None = None
        self._workers: list[Part] = []

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def db_url(self) -> str:
        """The DB_URL of the stack."""
        return self.postgres.url()

    @property
    def redis_addr(self) -> str:
        """The REDIS_ADDR of the stack; it needs `redis.password`."""
        return self.redis.address

    @property
    def grpc_addr(self) -> str:
        """Where clients and workers connect, HOST:PORT."""
        return self._addresses["GRPC_ADDR"].address.dial

    @property
    def http_addr(self) -> str:
        """Where /livez and /readyz are, HOST:PORT."""
        return self._addresses["HTTP_ADDR"].address.dial

    @property
    def server(self) -> Part:
        """The server."""
        if self._server is None:
            raise StartFailed("the stack was not started")
        return self._server

    def worker(self, index: int) -> Part:
        """A worker, counted from 0."""
        return self._workers[index]

    async def start(self) -> None:
        """Start everything; return once jobs can be submitted and every worker is connected.

        Raises StartFailed, with nothing left running, if a part does not come up.
        """
        self._take_directory()
        try:
            self._reserve_addresses()
            await self._start_services()
            applied = await migrations.up(self.db_url)
            log.info("schema is current", applied=[migration.stem for migration in applied])
            self._write_environment()
            await self.start_server()
            self._workers = [self._worker_part(number) for number in range(1, self.workers + 1)]
            for worker in self._workers:
                worker.start()
            await self.wait_for_workers(self.workers)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop everything in order, within 10 s; what does not end in time is killed."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + STOP_SECONDS
        await asyncio.gather(*(worker.stop(WORKER_STOP_SECONDS) for worker in self._workers))
        for directory in self.data_dir.glob("worker-*/worker-*"):
            # Of a worker that was killed.
            await stop_leftover(directory / "supervisor.lock", directory, signal.SIGKILL)
        if self._server is not None:
            await self._server.stop(deadline - loop.time() - DATABASE_STOP_SECONDS)
        await self.redis.stop()
        await self.postgres.stop(max(deadline - loop.time(), DATABASE_STOP_SECONDS / 2))
        for reservation in self._addresses.values():
            reservation.release()
        (self.data_dir / "env").unlink(missing_ok=True)
        self._lock.release()

    def kill(self) -> None:
        """End everything at once. The data stays whole; `stop` is still to be called."""
        for worker in self._workers:
            worker.kill_tree()
        if self._server is not None:
            self._server.kill_tree()
        self.redis.kill()
        self.postgres.kill()

    async def supervise(self) -> NoReturn:
        """Start again what ends by itself, until cancelled; raises StartFailed once Postgres has ended."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch_postgres())
                group.create_task(self._keep_redis())
                for part in (self.server, *self._workers):
                    group.create_task(part.keep())
        except* StartFailed as failures:
            failed = failures.exceptions[0]
        # Not from within: Python 3.11.2, which Debian has, would wrap it in a group again.
        raise failed

    async def start_server(self) -> None:
        """Start the server, at first or again once it has ended; return when it is ready."""
        if self._server is None:
            self._server = Part(self._program("server"), self._log_file("server"), self.output)
        else:
            await self._server.wait_for_end()
        self._server.start()
        await self._until(self._server_is_ready, self._server)

    async def start_worker(self, index: int) -> None:
        """Start a worker again, once it has ended; return when it is connected."""
        worker = self._workers[index]
        await worker.wait_for_end()

        async def is_connected() -> bool:
            now = await _sessions(client)
            return any(now[session] == worker.name for session in now.keys() - before.keys())

        async with Client(self.grpc_addr) as client:
            before = await _sessions(client)
            worker.start()
            await self._until(is_connected, self.server, worker)

    def kill_server(self) -> None:
        """SIGKILL the server."""
        self.server.kill()

    def kill_worker(self, index: int, *, with_commands: bool = False) -> None:
        """SIGKILL a worker, counted from 0; its supervisor and commands live on, or end too."""
        worker = self._workers[index]
        if with_commands:
            worker.kill_tree()
        else:
            worker.kill()

    async def wait_for_workers(self, count: int) -> None:
        """Return once `count` workers are connected."""

        async def are_connected() -> bool:
            return len(await _sessions(client)) >= count

        async with Client(self.grpc_addr) as client:
            await self._until(are_connected, self.server, *self._workers)

    def _take_directory(self) -> None:
        try:
            (self.data_dir / "logs").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StartFailed(f"{self.data_dir} can't be used as a data directory: {error}") from None
        previous = self._lock.acquire()
        if previous is not None:
            log.warning("the process that held this directory ended without stopping; going on", pid=previous)

    def _reserve_addresses(self) -> None:
        wanted = {"GRPC_ADDR": self.grpc_address, "HTTP_ADDR": self.http_address}
        for setting, address in wanted.items():
            self._addresses[setting] = Reservation(parse_address(address), setting)

    async def _start_services(self) -> None:
        failed: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.postgres.start())
                group.create_task(self.redis.start())
        except* StartFailed as failures:
            failed = failures.exceptions[0]
        # Not from within: see `supervise`.
        if failed is not None:
            raise failed

    def _environment(self) -> dict[str, str]:
        """Return what the server and the workers, and other programs that want to join, must be told."""
        return {
            "DB_URL": self.db_url,
            "REDIS_ADDR": self.redis_addr,
            "REDIS_PASSWORD": self.redis.password,
            "REDIS_DB": "0",
            **{setting: str(reservation.address) for setting, reservation in self._addresses.items()},
        }

    def _write_environment(self) -> None:
        # Whoever finds it finds all of it.
        new = self.data_dir / "env.new"
        new.unlink(missing_ok=True)
        new.touch(mode=0o600)
        lines = [f"{name}={shlex.quote(text)}\n" for name, text in self._environment().items()]
        new.write_text("".join(lines))
        new.replace(self.data_dir / "env")

    def _worker_part(self, number: int) -> Part:
        name = f"worker-{number}"
        slots = () if self.slots is None else ("--slots", str(self.slots))
        arguments = ("--name", name, "--state-dir", str(self.data_dir / name), *slots)
        program = self._program("worker", *arguments, *self.worker_arguments, name=name)
        return Part(program, self._log_file(name), self.output)

    def _program(self, command: str, *arguments: str, name: str | None = None) -> Program:
        return Program(
            name=name or command,
            # -P: what lies in the folder we were started in must not shadow a library.
            argv=(sys.executable, "-P", "-m", "orqestra", command, *arguments),
            directory=Path.cwd(),
            environment={
                **os.environ,
                "ORQESTRA_DRAIN_SECONDS": str(DRAIN_SECONDS),
                "ORQESTRA_ORPHAN_SECONDS": str(ORPHAN_SECONDS),
                **self.settings,
                **self._environment(),
            },
        )

    def _log_file(self, name: str) -> Path:
        return self.data_dir / "logs" / f"{name}.log"

    async def _server_is_ready(self) -> bool:
        return await _answers_ok(self._addresses["HTTP_ADDR"].address, "/readyz")

    async def _until(self, condition: Callable[[], Awaitable[bool]], *parts: Part) -> None:
        """Return once `condition` holds; raise StartFailed if it takes too long or one of `parts` ends."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + READY_SECONDS
        while not await condition():
            for part in parts:
                part.check_alive()
            if loop.time() > deadline:
                names = ", ".join(part.name for part in parts)
                raise StartFailed(f"not ready after {READY_SECONDS:.0f} s: {names}; see their logs")
            await asyncio.sleep(POLL_SECONDS)

    async def _watch_postgres(self) -> NoReturn:
        code = await self.postgres.child.wait()
        raise StartFailed(f"Postgres ended with exit code {code}; its log: {self.postgres.log_file}")

    async def _keep_redis(self) -> NoReturn:
        while True:
            code = await self.redis.child.wait()
            log.warning("Redis ended; starting it again", exit_code=code)
            await self.redis.start()


async def _sessions(client: Client) -> dict[int, str]:
    """Return the sessions that are open and the names of their workers; none if no server answers."""
    try:
        return {worker.session_id: worker.name for worker in await client.workers()}
    except Unavailable:
        return {}


async def _answers_ok(address: Address, path: str) -> bool:
    """Tell whether a GET is answered with 200. A probe of our own: no HTTP client is among our libraries."""
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            reader, writer = await asyncio.open_connection(address.dial_host, address.port)
            try:
                writer.write(f"GET {path} HTTP/1.0\r\nHost: {address.dial}\r\n\r\n".encode())
                status_line = await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
    return status_line.split(b" ")[1:2] == [b"200"]
