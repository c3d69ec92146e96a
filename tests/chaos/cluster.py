"""A cluster to be hurt: Postgres, Redis, servers and workers, each a process, each link a proxy.

It is kept warm from one fault to the next. Whatever a fault did, `heal` brings it back to what it was.
"""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import parse_qs, quote, urlsplit

import asyncpg
import redis.asyncio

from orqestra.client import Client
from orqestra.client.patience import Patience
from orqestra.embedded.address import Reservation
from orqestra.embedded.part import Part
from orqestra.embedded.postgres import EmbeddedPostgres
from orqestra.embedded.process import Program
from orqestra.embedded.redis import EmbeddedRedis
from orqestra.setting_kinds import parse_address
from orqestra.store import migrations
from tests.chaos.control import Control
from tests.chaos.disk import put_disk, take_away
from tests.chaos.history import History
from tests.chaos.nodes import POLL_SECONDS, Links, Node, Server, Shape, Worker
from tests.chaos.proxy import Bundle, Proxy, Target
from tests.chaos.settings import BROKEN, CLOCK_OFFSET, CONTROL, NAME
from tests.support.lossy_postgres import LossyPostgres
from tests.support.processes import processes_of
from tests.support.transitions import job_trigger, run_trigger

ROOT: Final = Path(__file__).resolve().parents[2]
PROBE: Final = Path(__file__).with_name("probe.sh")
FREE: Final = "127.0.0.1:0"
NAMESPACE: Final = "jobs"
WORKFLOW: Final = "probes"
WORKFLOW_STEPS: Final = 3
READY_SECONDS: Final = 30.0
POSTGRES_SETTINGS: Final = {
    "wal_level": "logical",
    "restart_after_crash": "off",
    "max_connections": "400",
    "max_wal_size": "4GB",
}
# What the machine's own environment says must not reach a process under test.
SETTINGS: Final = ("DB_", "REDIS_", "GRPC_", "HTTP_", "WORKER_", "WORKFLOWS_", "ORQESTRA_")


class Cluster:
    """Everything, started and stopped as one."""

    def __init__(self, folder: Path, shape: Shape | None = None) -> None:
        self.folder = folder
        self.shape = shape or Shape()
        self.postgres = EmbeddedPostgres(folder / "pg", settings=POSTGRES_SETTINGS)
        self.redis = EmbeddedRedis(folder / "redis")
        self.control = Control(folder / "control")
        self.client_link = Proxy(self._live_servers)
        self._first_server: Server | None = None
        self.servers: list[Server] = []
        self.workers: list[Worker] = []
        self.failed = False
        """Whether something went wrong here that is worth a look into the logs."""
        self._client: Client | None = None
        self._history: History | None = None

    @property
    def client(self) -> Client:
        """A patient client of whichever server lives."""
        assert self._client is not None
        return self._client

    @property
    def history(self) -> History:
        """What was committed."""
        assert self._history is not None
        return self._history

    @property
    def db_url(self) -> str:
        """The test's own way to Postgres, past all proxies."""
        return self.postgres.url()

    @property
    def journal(self) -> Path:
        """What the commands tell."""
        return self.folder / "journal"

    @property
    def nodes(self) -> list[Node]:
        """Every server and every worker."""
        return [*self.servers, *self.workers]

    def probe(self, *work: str) -> list[str]:
        """Return a command that journals itself and does `work` (see probe.sh)."""
        return ["/bin/sh", str(PROBE), str(self.folder), *work]

    def redis_client(self) -> Any:
        """Return a client of Redis past all proxies; whoever takes it closes it."""
        return redis.asyncio.Redis.from_url(self.redis.address)

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """End everything; nothing is left behind."""
        if self._client is not None:
            await self._client.close()
        for node in self.nodes:
            if node.running:
                node.resume()
            if node.running or isinstance(node, Worker):
                await node.kill_tree()
        for worker in self.workers:
            await worker.link.close()
        for server in self.servers:
            server.release()
            await server.links.commits.close()
            await asyncio.gather(server.links.postgres.close(), server.links.redis.close())
        await self.client_link.close()
        await self.control.close()
        await self.redis.stop()
        await self.postgres.stop()
        await asyncio.to_thread(take_away, self.postgres.directory)

    def leftovers(self) -> list[str]:
        """Return the processes that belong to this cluster and should not be there any more."""
        return processes_of(str(self.folder))

    def lead_client_to(self, server: Server) -> None:
        """Have the client connect anew, until `heal` to that server as long as it lives."""
        self._first_server = server
        self.client_link.reset()

    async def kill_postgres(self) -> None:
        """SIGKILL the postmaster and every backend of it: a crash, without a word to anybody."""
        self.postgres.child.kill_tree()
        await self.postgres.child.wait()

    async def kill_redis(self) -> None:
        """SIGKILL Redis, which forgets everything."""
        self.redis.kill()
        await self.redis.child.wait()

    async def heal(self) -> None:
        """Bring back all that is down or bad; return once it is whole."""
        self.client_link.heal()
        self._first_server = None
        for server in self.servers:
            server.links.postgres.heal()
            server.links.redis.heal()
        for worker in self.workers:
            worker.link.heal()
        if self.postgres.child.exit_code is not None:
            await self.postgres.start()
        if self.redis.child.exit_code is not None:
            await self.redis.start()
        for node in self.nodes:
            node.resume()
            if not node.running:
                node.start()
        await self.whole()

    async def whole(self, seconds: float = READY_SECONDS) -> None:
        """Return once every server is ready and every worker has an open session."""
        async with asyncio.timeout(seconds):
            for node in self.nodes:
                await node.puppet()
            for worker in self.workers:
                await worker.supervisor()
            for server in self.servers:
                await server.ready()
            while await self._open_sessions() != {worker.name for worker in self.workers}:
                await asyncio.sleep(POLL_SECONDS)

    async def _open_sessions(self) -> set[str]:
        connection = await asyncpg.connect(self.db_url)
        try:
            rows = await connection.fetch(
                "SELECT w.name FROM sessions w WHERE closed_at IS NULL AND lease_expires_at > clock_timestamp()"
            )
        finally:
            await connection.close()
        return {row["name"] for row in rows}

    async def _start(self) -> None:
        for name in ("locks", "logs", "workflows"):
            (self.folder / name).mkdir()
        self.journal.touch()
        self._write_workflow()
        if self.shape.disk_mb:
            await asyncio.to_thread(put_disk, self.postgres.directory, self.shape.disk_mb)
        await asyncio.gather(self.postgres.start(), self.redis.start(), self.control.open())
        await migrations.up(self.db_url)
        if self.shape.witnessed:
            self._history = await History.open(self.db_url)
        if self.shape.witnessed and not self.shape.broken:
            # A broken build is for the checker to find, not for the database to refuse.
            await _execute(self.db_url, job_trigger() + run_trigger())
        await self.client_link.open()
        for number in range(self.shape.servers):
            self.servers.append(await self._make_server(f"server-{number + 1}"))
        for number in range(self.shape.workers):
            self.workers.append(await self._make_worker(f"worker-{number + 1}"))
        for node in self.nodes:
            node.start()
        await self.whole()
        self._client = Client(f"127.0.0.1:{self.client_link.port}", patience=Patience(call_seconds=5.0))

    def _write_workflow(self) -> None:
        """Write the one workflow of the tests: three probes, one after the other."""
        steps = [{"name": f"step-{number}", "argv": self.probe()} for number in range(1, WORKFLOW_STEPS + 1)]
        document = {"name": WORKFLOW, "steps": steps}
        (self.folder / "workflows" / f"{WORKFLOW}.yaml").write_text(json.dumps(document))

    async def _make_server(self, name: str) -> Server:
        folder = self.folder / name
        folder.mkdir()
        ports = {setting: Reservation(parse_address(FREE), setting) for setting in ("GRPC_ADDR", "HTTP_ADDR")}
        postgres = Proxy(lambda: [Target(path=_postgres_socket(self.db_url))])
        await postgres.open(folder / ".s.PGSQL.5432")
        redis_link = Proxy(lambda: [Target(path=Path(self.redis.address.removeprefix("unix://")))])
        await redis_link.open(folder / "redis.sock")
        (folder / "c").mkdir()
        commits = LossyPostgres(_url_at(self.db_url, folder), folder / "c")
        await commits.open()
        environment = {
            # The name tells whose transaction it is that waits in a gate.
            "DB_URL": f"{commits.url if self.shape.witnessed else self.db_url}&application_name={name}",
            "REDIS_ADDR": f"unix://{folder}/redis.sock" if self.shape.witnessed else self.redis.address,
            "WORKFLOWS_DIR": str(self.folder / "workflows"),
            **{setting: str(port.address) for setting, port in ports.items()},
        }
        part = self._part(name, environment, "server")
        links = Links(postgres=postgres, redis=redis_link, commits=commits)
        return Server(name, part, self.control, self._log(name), ports=ports, links=links)

    async def _make_worker(self, name: str) -> Worker:
        link = Bundle([Proxy(partial(_listening, server)) for server in self.servers])
        for proxy in link.proxies:
            await proxy.open()
        arguments = (
            *("--name", name, "--slots", str(self.shape.slots), "--drain-seconds", "5"),
            *("--state-dir", str(self.folder / name)),
        )
        ports = link.ports if self.shape.witnessed else [server.grpc_port for server in self.servers]
        addresses = ",".join(f"127.0.0.1:{port}" for port in ports)
        part = self._part(name, {"ORQESTRA_SERVERS": addresses}, "worker", *arguments)
        return Worker(name, part, self.control, self._log(name), link=link, state=self.folder / name)

    def _part(self, name: str, environment: Mapping[str, str], *arguments: str) -> Part:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(SETTINGS)}
        offset = (self.shape.clock_offsets or {}).get(name, 0.0)
        program = Program(
            name=name,
            argv=(sys.executable, "-P", "-m", "tests.chaos.launch", *arguments),
            directory=self.folder,
            environment={
                **inherited,
                "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
                # Commands inherit it: that is how one that is left over is found.
                "TMPDIR": str(self.folder),
                "ORQESTRA_LEASE_SECONDS": f"{self.shape.lease_seconds:g}",
                "ORQESTRA_LOG_FORMAT": "json",
                CONTROL: str(self.control.path),
                NAME: name,
                CLOCK_OFFSET: str(offset),
                BROKEN: self.shape.broken,
                **(self.shape.variables or {}),
                **environment,
            },
        )
        return Part(program, self._log(name), None)

    def _log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    def _live_servers(self) -> list[Target]:
        servers = sorted(self.servers, key=lambda server: server is not self._first_server)
        return [Target(port=server.grpc_port) for server in servers if server.running]


def _listening(server: Server) -> list[Target]:
    return [Target(port=server.grpc_port)] if server.running else []


def _postgres_socket(url: str) -> Path:
    return Path(parse_qs(urlsplit(url).query)["host"][0]) / ".s.PGSQL.5432"


def _url_at(url: str, folder: Path) -> str:
    """Return the URL of the same database by the socket in another folder."""
    return urlsplit(url)._replace(query=f"host={quote(str(folder))}&port=5432").geturl()


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()
