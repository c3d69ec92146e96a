"""The server: every part made once, wired together, started in order and stopped in the opposite one."""

import asyncio
import os
import secrets
import signal
import socket
from dataclasses import dataclass
from typing import Final

from orqestra._dispatch import Matcher
from orqestra.clock import Clock, SystemClock
from orqestra.engine.audit import Audit
from orqestra.engine.cancels import Cancels
from orqestra.engine.catalog import Catalog
from orqestra.engine.core import Core
from orqestra.engine.direct import DirectMatch
from orqestra.engine.dispatcher import Dispatcher
from orqestra.engine.expiry import Expiry
from orqestra.engine.hellos import Hellos
from orqestra.engine.intake import Intake
from orqestra.engine.inventory import Inventory
from orqestra.engine.janitor import Janitor
from orqestra.engine.lanes import Lanes
from orqestra.engine.leases import Leases
from orqestra.engine.link import Link
from orqestra.engine.live import Live
from orqestra.engine.messages import LiveMessages, Messages
from orqestra.engine.outputs import Outputs
from orqestra.engine.pg_clock import PostgresClock
from orqestra.engine.refill import Refill
from orqestra.engine.relay import Relay
from orqestra.engine.repairs import Repairs
from orqestra.engine.retention import Deleted, retentions
from orqestra.engine.sessions import Sessions
from orqestra.engine.settlement import Settlement
from orqestra.engine.watch import Watch
from orqestra.engine.workflows import Workflows
from orqestra.garbage import collect_seldom
from orqestra.http.metrics import Metrics, Readings
from orqestra.http.server import HttpServer, Readiness
from orqestra.log import get_logger
from orqestra.model.errors import StorageUnavailable, Unavailable
from orqestra.model.lifecycle import State
from orqestra.queue.connection import connect
from orqestra.queue.hints import Hints
from orqestra.rpc.jobs import JobsService
from orqestra.rpc.server import GrpcServer
from orqestra.rpc.worker_stream import Receivers, WorkerStreams
from orqestra.rpc.workflows import WorkflowsService
from orqestra.service import Service, ServiceGroup
from orqestra.setting_kinds import mask_url
from orqestra.settings import Settings
from orqestra.store import migrations
from orqestra.store.database import Database

# Together under the five seconds that a server has to stop.
STOP_SECONDS: Final = 4.0
LAST_RESORT_SECONDS: Final = 0.8
GRACE_SECONDS: Final = 1.0
LEASE_TIMEOUT_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 0.25
# What callers never take: one for new jobs, one for claims, one for results.
LOOPS_CONNECTIONS: Final = 3
HEALTH_SECONDS: Final = 0.5

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The engine of one server, wired: its loops in the order in which they start, and what the doors reach."""

    link: Link
    lanes: Lanes
    sessions: Sessions
    dispatcher: Dispatcher
    settlement: Settlement
    deleted: Deleted
    services: tuple[Service, ...]
    jobs: JobsService
    workflows: WorkflowsService
    streams: WorkerStreams


def wire(settings: Settings, core: Core, lanes: Lanes, lease_database: Database) -> Parts:
    """Make every part of the engine once and connect them along the way of a job."""
    name = f"{socket.gethostname()}:{os.getpid()}"
    matcher = Matcher()
    lanes.listen(matcher.set_lane)
    lanes.listen(lambda *_lane: core.hints.share(lanes.count))
    hellos = Hellos(core, server_name=name, lease_ms=int(settings.lease_seconds * 1000))
    sessions = Sessions(core, matcher, hellos)
    refill = Refill(core)
    watch = Watch(core)
    dispatcher = Dispatcher(core, refill, lanes, sessions, watch.changed)
    refill.on_fill(dispatcher.wake_lanes)
    relay = Relay(core, dispatcher.wake_lanes)
    direct = DirectMatch(core, sessions, relay, watch.changed)
    settlement = Settlement(core, lanes, relay, direct, watch.changed)
    leases = Leases(core, lease_database, sessions)
    expiry = Expiry(core, leases, settlement, lease_seconds=settings.lease_seconds)
    cancels = Cancels(core, relay, sessions, watch.changed)
    outputs = Outputs(core, sessions)
    live = Live(core, sessions)
    inventory = Inventory(core, sessions, dispatcher, settlement)
    intake = Intake(core, lanes, relay, direct)
    messages = Messages(core, wake_lanes=dispatcher.wake_lanes, cancelled=cancels.wake, changed=watch.changed_elsewhere)
    catalog = Catalog(settings.workflows_dir, core.clock)
    deleted = Deleted()
    sessions.on_change(dispatcher.wake)
    sessions.on_change(expiry.wake)
    healers = (refill, expiry, Audit(core, lanes, sessions), inventory)
    tidiers = (Janitor(core, lanes), *retentions(core, _ages_ms(settings), deleted))
    loops = (relay, watch, outputs, live, settlement, cancels, *healers, *tidiers, intake, dispatcher)
    streams = WorkerStreams(
        sessions=sessions,
        dispatcher=dispatcher,
        receivers=Receivers(settlement=settlement, outputs=outputs, inventory=inventory, live=live),
    )
    return Parts(
        link=core.link,
        lanes=lanes,
        sessions=sessions,
        dispatcher=dispatcher,
        settlement=settlement,
        deleted=deleted,
        services=(leases, streams.deadlines, core.link, messages, LiveMessages(core, live), hellos, *loops),
        jobs=JobsService(core=core, intake=intake, cancels=cancels, watch=watch, live=live),
        workflows=WorkflowsService(core.callers, catalog, Workflows(core, catalog, lanes, relay, direct), cancels),
        streams=streams,
    )


def _ages_ms(settings: Settings) -> dict[State, int]:
    """Return how long after its end what ended in each state is deleted; a state that is not there is kept."""
    ages_ms = {
        State.COMPLETED: settings.delete_completed_after_ms,
        State.FAILED: settings.delete_failed_after_ms,
        State.CANCELLED: settings.delete_cancelled_after_ms,
    }
    return {state: age_ms for state, age_ms in ages_ms.items() if age_ms is not None}


class Server:
    """One server process. `serve` connects, makes one and runs it; `run` serves until it is told to stop."""

    def __init__(self, settings: Settings, clock: Clock, databases: tuple[Database, Database]) -> None:
        database, lease_database = databases
        self.settings = settings
        self._clock = clock
        self._databases = databases
        self._redis = connect(settings)
        server_id = secrets.randbits(62)
        namespace, window = settings.redis_namespace, settings.window_hints
        hints = Hints(self._redis, namespace=namespace, boot_id=f"{server_id:x}", window=window)
        lanes = Lanes(database)
        repairs = Repairs()
        core = Core(
            clock=clock,
            database=database,
            callers=database.at_most(max(1, settings.db_connections - LOOPS_CONNECTIONS)),
            hints=hints,
            link=Link(clock, hints, lanes, repairs, address=str(settings.redis_address)),
            pg_clock=PostgresClock(clock),
            server_id=server_id,
            repairs=repairs,
        )
        self._repairs = repairs
        self._parts = wire(settings, core, lanes, lease_database)
        self._services = ServiceGroup(self._parts.services, clock)
        self._grpc = GrpcServer(self._parts.jobs, self._parts.workflows, self._parts.streams)
        self._metrics = Metrics(self._readings)
        self._http = HttpServer(self._readiness, self._metrics)
        self._stopping = asyncio.Event()
        self._silent: tuple[str, ...] = ()
        self.serving = asyncio.Event()
        """Set once both ports are listened on and every loop has had its first step."""
        self.grpc_port = self.http_port = 0

    @property
    def is_stopping(self) -> bool:
        """True from the call of `stop` on."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Ask `run` to return."""
        self._stopping.set()

    async def run(self) -> None:
        """Start everything, serve until `stop`, and end within five seconds without touching a lease."""
        starting = asyncio.create_task(self._start(), name="start")
        stopping = asyncio.create_task(self._stopping.wait(), name="stop")
        try:
            # A start may wait for Postgres for long; a stop does not wait for the start.
            await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
            await self._watch_health()
        finally:
            starting.cancel()
            stopping.cancel()
            await self._shut_down()

    async def _start(self) -> None:
        await self._parts.lanes.load()
        await self._services.start()
        await self._services.ready()
        http_address = self.settings.http_address
        self.http_port = await self._http.start(http_address.listen_host, http_address.port)
        self.grpc_port = await self._grpc.start(self.settings.grpc_address.listen)
        await self._grpc.set_serving(serving=True)
        log.info("server ready", grpc=self.grpc_port, http=self.http_port, redis=self._parts.link.up)
        self.serving.set()

    async def _shut_down(self) -> None:
        """No new work, then the results that came in, then the goodbyes: running commands go on.

        All of it shares one deadline, whatever hangs; a process that hangs even then is ended.
        """
        log.info("server stopping")
        self._stopping.set()
        loop = asyncio.get_running_loop()
        last_resort = loop.call_later(STOP_SECONDS + LAST_RESORT_SECONDS, os._exit, 1)
        try:
            await self._stop_in_order(self._clock.monotonic() + STOP_SECONDS)
        finally:
            last_resort.cancel()
        log.info("server stopped")

    async def _stop_in_order(self, deadline: float) -> None:

        def left() -> float:
            return max(0.0, deadline - self._clock.monotonic())

        await self._grpc.set_serving(serving=False)
        self._parts.sessions.rest()
        await self._parts.dispatcher.stop(left() / 2)
        await self._parts.settlement.stop(left() / 2)
        self._parts.sessions.end_all("the server stops")
        await asyncio.gather(self._grpc.stop(min(GRACE_SECONDS, left())), self._services.stop(left()))
        await self._http.stop()
        await self._redis.aclose()
        await asyncio.gather(*(database.close(left()) for database in self._databases))

    def _readiness(self) -> Readiness:
        silent = self._services.silent(self._clock.monotonic())
        parts = {name: "no progress" for name in silent}
        if not self._parts.link.up:
            parts["redis"] = f"away, dispatching from Postgres: {self._parts.link.trouble} (REDIS_ADDR)"
        if self._stopping.is_set():
            parts["server"] = "stopping"
        return Readiness(ready=not silent and not self._stopping.is_set(), parts=parts)

    def _readings(self) -> Readings:
        return Readings(
            repairs=self._repairs.counts,
            service_errors={service.name: service.errors for service in self._services.services},
            sessions=len(self._parts.sessions.ids),
            redis_up=self._parts.link.up,
            deleted_rows=self._parts.deleted.counts,
        )

    async def _watch_health(self) -> None:
        begin = self._clock.monotonic()
        while not await self._clock.wait(self._stopping, HEALTH_SECONDS):
            self._metrics.note_lag(self._clock.monotonic() - begin - HEALTH_SECONDS)
            await self._tell_health()
            begin = self._clock.monotonic()

    async def _tell_health(self) -> None:
        silent = self._services.silent(self._clock.monotonic())
        if silent != self._silent:
            log.error("loops make no progress", loops=silent) if silent else log.info("all loops make progress")
            self._silent = silent
            await self._grpc.set_serving(serving=not silent)


async def serve(settings: Settings) -> None:
    """Run a server until SIGTERM or SIGINT; a second signal ends it at once.

    Raises:
        BadSettings: an address cannot be listened on or is not allowed.
        SchemaMismatch: the database needs another version of the schema.
        Unavailable: Postgres did not answer for `connect_seconds`.
    """
    settings.check_listen()
    databases = await _open(settings)
    collect_seldom()
    server = Server(settings, SystemClock(), databases)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_signal, server)
    await server.run()


def _on_signal(server: Server) -> None:
    if server.is_stopping:
        os._exit(1)
    server.stop()


async def _open(settings: Settings) -> tuple[Database, Database]:
    """Connect to Postgres. Redis is not needed for a start: the link looks for it, and tells."""
    database = await _reach_postgres(settings)
    async with migrations.connect(settings.db_url) as connection:
        await migrations.check(connection)
    leases = await Database.connect(settings.db_url, connections=1, timeout_seconds=LEASE_TIMEOUT_SECONDS)
    return database, leases


async def _reach_postgres(settings: Settings) -> Database:
    """Try for as long as a start may take."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + settings.connect_seconds
    told = False
    while True:
        try:
            return await Database.connect(settings.db_url, connections=settings.db_connections)
        except StorageUnavailable as error:
            what = f"Postgres at {mask_url(settings.db_url)} (DB_URL)"
            if loop.time() >= deadline:
                raise Unavailable(f"{what} cannot be reached: {error}") from error
            if not told:
                log.warning("waiting for a service", service=what, error=str(error))
                told = True
            await asyncio.sleep(RETRY_SECONDS)
