"""The server: every part made once, wired together, started in order and stopped in the opposite one."""

import asyncio
import os
import secrets
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from orqestra._dispatch import Matcher
from orqestra.clock import Clock, SystemClock
from orqestra.engine.cancels import Cancels
from orqestra.engine.catalog import Catalog
from orqestra.engine.core import Core
from orqestra.engine.dispatcher import Dispatcher
from orqestra.engine.expiry import Expiry
from orqestra.engine.intake import Intake
from orqestra.engine.janitor import Janitor
from orqestra.engine.lanes import Lanes
from orqestra.engine.leases import Leases
from orqestra.engine.link import Link, Messages
from orqestra.engine.outputs import Outputs
from orqestra.engine.pg_clock import PostgresClock
from orqestra.engine.refill import Refill
from orqestra.engine.relay import Relay
from orqestra.engine.sessions import Sessions
from orqestra.engine.settlement import Settlement
from orqestra.engine.watch import Watch
from orqestra.engine.workflows import Workflows
from orqestra.http.server import HttpServer, Readiness
from orqestra.log import get_logger
from orqestra.model.errors import HintsUnavailable, StorageUnavailable, Unavailable
from orqestra.queue.connection import connect
from orqestra.queue.hints import Hints
from orqestra.rpc.jobs import Engine, JobsService
from orqestra.rpc.server import GrpcServer
from orqestra.rpc.worker_stream import WorkerEngine, WorkerStreams
from orqestra.rpc.workflows import WorkflowsService
from orqestra.service import ServiceGroup
from orqestra.setting_kinds import mask_url
from orqestra.settings import Settings
from orqestra.store import migrations
from orqestra.store.database import Database

STOP_SECONDS: Final = 4.0
GRACE_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 0.25
HEALTH_SECONDS: Final = 0.5

T = TypeVar("T")

log = get_logger(__name__)


class Server:
    """One server process. Made by `open`, which connects; `run` serves until it is told to stop."""

    def __init__(
        self, settings: Settings, clock: Clock, database: Database, lease_database: Database
    ) -> None:
        self.settings = settings
        self._clock = clock
        self._databases = (database, lease_database)
        self._redis = connect(settings)
        server_id = secrets.randbits(62)
        server_name = f"{socket.gethostname()}:{os.getpid()}"
        hints = Hints(
            self._redis,
            namespace=settings.redis_namespace,
            boot_id=f"{server_id:x}",
            window=settings.window_hints,
        )
        matcher = Matcher()
        self.lanes = Lanes(database)
        self.lanes.listen(matcher.set_lane)
        link = Link(clock, hints, self.lanes)
        core = Core(
            clock=clock,
            database=database,
            hints=hints,
            link=link,
            pg_clock=PostgresClock(clock),
            server_id=server_id,
        )
        self.sessions = Sessions(
            database,
            matcher,
            server_id=server_id,
            server_name=server_name,
            lease_ms=int(settings.lease_seconds * 1000),
        )
        # The dispatcher comes last in the flow and is woken by everyone before it.
        refill = Refill(core, window=settings.window_hints, wake_lanes=self._wake_lanes)
        self.dispatcher = Dispatcher(core, refill, self.lanes, self.sessions, matcher)
        relay = Relay(core, self._wake_lanes)
        intake = Intake(core, self.lanes, relay)
        watch = Watch(core)
        settlement = Settlement(core, self.lanes, relay, self.sessions, watch.changed)
        leases = Leases(clock, lease_database, self.sessions, core.pg_clock)
        expiry = Expiry(clock, database, leases, settlement, lease_seconds=settings.lease_seconds)
        cancels = Cancels(core, relay, self.sessions, watch.changed)
        outputs = Outputs(clock, database, self.sessions)
        messages = Messages(
            clock,
            hints,
            wake_lanes=self._wake_lanes,
            cancelled=cancels.wake,
            changed=watch.changed_elsewhere,
        )
        catalog = Catalog(settings.workflows_dir, clock)
        workflows = Workflows(database, catalog, self.lanes, relay, server_id=server_id)
        self.sessions.on_change(self.dispatcher.wake)
        self.sessions.on_change(expiry.wake)
        self._link = link
        self._services = ServiceGroup(
            [
                leases,
                link,
                messages,
                relay,
                refill,
                watch,
                outputs,
                settlement,
                expiry,
                cancels,
                Janitor(clock, database, self.lanes),
                intake,
                self.dispatcher,
            ],
            clock,
        )
        self._grpc = GrpcServer(
            JobsService(
                Engine(
                    clock=clock,
                    database=database,
                    intake=intake,
                    cancels=cancels,
                    watch=watch,
                    outputs=outputs,
                )
            ),
            WorkflowsService(database, catalog, workflows, cancels),
            WorkerStreams(
                WorkerEngine(
                    clock=clock,
                    sessions=self.sessions,
                    dispatcher=self.dispatcher,
                    settlement=settlement,
                    outputs=outputs,
                    server_name=server_name,
                )
            ),
        )
        self._http = HttpServer(self._readiness)
        self._stopping = asyncio.Event()
        self._told_unready: tuple[str, ...] | None = None

    @property
    def is_stopping(self) -> bool:
        """True from the call of `stop` on."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Ask `run` to return."""
        self._stopping.set()

    async def run(self) -> None:
        """Start everything, serve until `stop`, and end within five seconds without touching a lease."""
        await self.lanes.load()
        await self._services.start()
        await self._services.ready()
        http_port = await self._http.start(
            self.settings.http_address.listen_host, self.settings.http_address.port
        )
        grpc_port = await self._grpc.start(self.settings.grpc_address.listen)
        await self._grpc.set_serving(serving=True)
        log.info("server ready", grpc=grpc_port, http=http_port, redis=self._link.up)
        try:
            while not await self._clock.wait(self._stopping, HEALTH_SECONDS):
                await self._tell_health()
        finally:
            await self._shut_down()

    async def _shut_down(self) -> None:
        log.info("server stopping")
        self._stopping.set()
        # No new work, then the results that came in, then the goodbyes: running commands go on.
        await self._grpc.set_serving(serving=False)
        await self.dispatcher.stop(STOP_SECONDS)
        self.sessions.end_all("the server stops")
        grpc_stop = asyncio.create_task(self._grpc.stop(GRACE_SECONDS))
        await self._services.stop(STOP_SECONDS - GRACE_SECONDS)
        await grpc_stop
        await self._http.stop()
        await self._redis.aclose()
        for database in self._databases:
            await database.close()
        log.info("server stopped")

    def _wake_lanes(self, lanes: Sequence[int]) -> None:
        self.dispatcher.wake_lanes(lanes)

    def _readiness(self) -> Readiness:
        silent = self._services.silent(self._clock.monotonic())
        parts = {name: "no progress" for name in silent}
        if not self._link.up:
            parts["redis"] = "away, dispatching from Postgres"
        if self._stopping.is_set():
            parts["server"] = "stopping"
        return Readiness(ready=not silent and not self._stopping.is_set(), parts=parts)

    async def _tell_health(self) -> None:
        silent = self._services.silent(self._clock.monotonic())
        if silent != self._told_unready:
            if silent:
                log.error("not ready", silent=silent)
            self._told_unready = silent
            await self._grpc.set_serving(serving=not silent)


async def serve(settings: Settings) -> None:
    """Run a server until SIGTERM or SIGINT; a second signal ends it at once.

    Raises:
        BadSettings: an address cannot be listened on or is not allowed.
        SchemaMismatch: the database needs another version of the schema.
        Unavailable: Postgres or Redis did not answer for `connect_seconds`.
    """
    settings.check_listen()
    clock = SystemClock()
    database, lease_database = await _open(settings)
    server = Server(settings, clock, database, lease_database)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_signal, server)
    await server.run()


def _on_signal(server: Server) -> None:
    if server.is_stopping:
        os._exit(1)
    server.stop()


async def _open(settings: Settings) -> tuple[Database, Database]:
    """Connect to Postgres and Redis, both within the time a start may take."""
    deadline = asyncio.get_running_loop().time() + settings.connect_seconds
    shown = mask_url(settings.db_url)
    database = await _keep_trying(
        lambda: Database.connect(settings.db_url, connections=settings.db_connections),
        deadline,
        f"Postgres at {shown} (DB_URL)",
    )
    async with migrations.connect(settings.db_url) as connection:
        await migrations.check(connection)
    redis = connect(settings)
    try:
        hints = Hints(redis, namespace=settings.redis_namespace, boot_id="start", window=1)
        await _keep_trying(hints.policy, deadline, f"Redis at {settings.redis_address} (REDIS_ADDR)")
    except BaseException:
        await database.close()
        raise
    finally:
        await redis.aclose()
    return database, await Database.connect(settings.db_url, connections=1)


async def _keep_trying(connect_once: Callable[[], Awaitable[T]], deadline: float, what: str) -> T:
    loop = asyncio.get_running_loop()
    told = False
    while True:
        try:
            return await connect_once()
        except (StorageUnavailable, HintsUnavailable) as error:
            if loop.time() >= deadline:
                raise Unavailable(f"{what} cannot be reached: {error}") from error
            if not told:
                log.warning("waiting for a service", service=what, error=str(error))
                told = True
            await asyncio.sleep(RETRY_SECONDS)
