"""A worker from start to drain: what it is made of, and how it ends."""

import asyncio
import itertools
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from orqestra.clock import Clock, SystemClock
from orqestra.log import get_logger
from orqestra.model import limits
from orqestra.model.errors import StartFailed
from orqestra.worker.connection import Connection, Introduction
from orqestra.worker.environment import base_environment
from orqestra.worker.identity import Identity
from orqestra.worker.jobs import Jobs, OnNoops
from orqestra.worker.shell import Shell
from orqestra.worker.shortage import check_slots
from orqestra.worker.supervised import KEEPS_ENDS, Supervision, Supervisor
from orqestra.worker.surroundings import Surroundings

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
HAND_OVER_SIGNAL: Final = signal.SIGUSR2
# Of those whose results are not delivered, so many are named.
LOGGED_JOBS: Final = 20
# What a command that the drain ends has between TERM and KILL, whatever its own grace is.
DRAIN_GRACE_SECONDS: Final = limits.GRACE_DEFAULT_SECONDS
# After KILL, until the supervisor has told the end of all: the time that pipes are still read, and some.
KILL_SECONDS: Final = 3.0
# After the end of the last command, until its result is acknowledged, durable or not.
DELIVER_SECONDS: Final = 2.0
# From one look at the time to the next.
LOOK_SECONDS: Final = 1.0
# From one attempt to start a supervisor to the next.
AGAIN_SECONDS: Final = 1.0
# To end the stream in good order.
CLOSE_SECONDS: Final = 3.0

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """What a worker is started with, checked. An empty `name` becomes the host's with the worker's index."""

    addresses: tuple[str, ...]
    name: str
    slots: int
    queues: tuple[str, ...]
    labels: dict[str, str]
    state_dir: Path
    drain_seconds: float
    orphan_seconds: float
    """How long commands go on without a daemon."""
    passed_on: tuple[str, ...] = ()
    """Variables of the worker's own environment that commands see."""
    surroundings: Surroundings = field(default_factory=Surroundings)


class Worker:
    """One worker in this process. `run` serves until `stop` or `hand_over`.

    SIGTERM and SIGINT call the one, SIGUSR2 the other. `on_noops` is as `Jobs` has it.
    """

    def __init__(self, options: WorkerOptions, clock: Clock | None = None, on_noops: OnNoops | None = None) -> None:
        self._options = options
        self._clock = clock or SystemClock()
        self._on_noops = on_noops
        self._stopping = asyncio.Event()
        self._hurried = asyncio.Event()
        self._handing_over = asyncio.Event()

    async def run(self) -> int:
        """Serve; return the exit code: 0, or 1 if results could not be delivered.

        Raises:
            StartFailed: the state directory can't be used, the supervisor can't be started, or there are too
                few descriptors for so many slots.
        """
        check_slots(self._options.slots)
        identity = Identity.open(self._options.state_dir, traversable=bool(self._options.surroundings.run_as))
        try:
            return await self._work(identity)
        finally:
            identity.close()

    def stop(self) -> None:
        """Drain, then end. The second call does not wait for commands any longer."""
        if self._stopping.is_set():
            self._hurried.set()
        self._stopping.set()

    def hand_over(self) -> None:
        """End at once and leave the commands to the supervisor: the next start takes them over."""
        self._handing_over.set()

    async def _work(self, identity: Identity) -> int:
        supervision = Supervision(identity.directory, self._options.orphan_seconds)
        base = base_environment(os.environb, self._options.passed_on)
        shell = Shell(base, identity.jobs_directory, self._options.surroundings)
        jobs = Jobs(self._options.slots, shell, self._on_noops)
        jobs.attach(supervision.open())
        connection = self._connection(identity, supervision, jobs)

        def look() -> None:
            if jobs.look():
                connection.beat_now()

        watching = asyncio.create_task(_watch(supervision, jobs, connection, self._clock), name="supervision")
        with _regularly(look), _signals(self.stop, self.hand_over):
            await self._serve(connection, jobs, watching)
        if self._handing_over.is_set():
            log.info("handing over", held=len(jobs.held()))
            return 0
        await supervision.close()
        return _exit_code(jobs)

    async def _serve(self, connection: Connection, jobs: Jobs, watching: "asyncio.Task[None]") -> None:
        link = asyncio.create_task(connection.run(), name="connection")
        stopping = asyncio.create_task(self._stopping.wait())
        handing_over = asyncio.create_task(self._handing_over.wait())
        await asyncio.wait([link, watching, stopping, handing_over], return_when=asyncio.FIRST_COMPLETED)
        if self._stopping.is_set():
            await self._drain(jobs, connection)
        watching.cancel()
        if not self._handing_over.is_set():
            connection.close()
            await asyncio.wait([link], timeout=CLOSE_SECONDS)
        stopping.cancel()
        handing_over.cancel()
        for work in (link, watching):
            if work.done() and not work.cancelled():
                work.result()

    def _connection(self, identity: Identity, supervision: Supervision, jobs: Jobs) -> Connection:
        options = self._options
        introduction = Introduction(
            name=options.name or f"{socket.gethostname()}-{identity.index}",
            queues=options.queues,
            labels=options.labels,
            identity=identity,
            supervision=supervision,
        )
        log.info(
            "worker starting",
            worker_id=identity.worker_id,
            name=introduction.name,
            slots=options.slots,
            queues=list(options.queues),
            addresses=list(options.addresses),
        )
        return Connection(options.addresses, introduction, jobs, clock=self._clock)

    async def _drain(self, jobs: Jobs, connection: Connection) -> None:
        """Return when all is delivered, or when there is no more time for it."""
        log.info("draining", seconds=self._options.drain_seconds, held=len(jobs.held()))
        jobs.drain()
        connection.beat_now()
        await _first_of(self._options.drain_seconds, jobs.idle, self._hurried)
        if not jobs.quiet.is_set():
            jobs.return_running()
            await _first_of(DRAIN_GRACE_SECONDS, jobs.quiet, self._hurried)
            jobs.kill_running()
            await _first_of(KILL_SECONDS, jobs.quiet)
        jobs.end_supervisor()
        await _first_of(DELIVER_SECONDS, jobs.idle)


async def _watch(supervision: Supervision, jobs: Jobs, connection: Connection, clock: Clock) -> None:
    """Take what the supervisor tells, for ever; when it has ended, start another and say so to the server."""
    while True:
        if supervision.supervisor is not None:
            await _listen(supervision.supervisor, jobs, connection)
            log.error("the supervisor has ended, and all commands with it")
            supervision.lost()
            jobs.lost()
            told = False
        try:
            jobs.attach(await asyncio.to_thread(supervision.open))
        except StartFailed as error:
            log.warning("no supervisor, no slots are offered until there is one", reason=str(error))
        # What a spool has is among what the next Hello says that the worker holds; and without a
        # supervisor the server must know all the same that nothing runs here any more.
        if supervision.supervisor is not None or not told:
            told = True
            connection.renew()
        if supervision.supervisor is None:
            await clock.wait(asyncio.Event(), AGAIN_SECONDS)


async def _listen(supervisor: Supervisor, jobs: Jobs, connection: Connection) -> None:
    """Return when the supervisor has ended."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def read() -> None:
        health = jobs.health
        if not jobs.read_reports():
            loop.remove_reader(supervisor.fileno())
            ended.set()
        elif jobs.health != health:
            _tell_health(jobs)
            connection.beat_now()

    loop.add_reader(supervisor.fileno(), read)
    # What came along with its introduction has been read from the socket already.
    read()
    try:
        await ended.wait()
    finally:
        loop.remove_reader(supervisor.fileno())


def _tell_health(jobs: Jobs) -> None:
    if not jobs.health:
        log.info("well again")
    elif jobs.offered_slots:
        log.error("not well", reason=jobs.health)
    else:
        log.error("not well: no slots are offered until that is over", reason=jobs.health)


@contextmanager
def _regularly(call: Callable[[], None]) -> Iterator[None]:
    """Have `call` called every `LOOK_SECONDS`."""
    loop = asyncio.get_running_loop()
    next_look: asyncio.TimerHandle

    def look() -> None:
        nonlocal next_look
        next_look = loop.call_later(LOOK_SECONDS, look)
        call()

    next_look = loop.call_later(LOOK_SECONDS, look)
    try:
        yield
    finally:
        next_look.cancel()


@contextmanager
def _signals(stop: Callable[[], None], hand_over: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    calls = {**dict.fromkeys(STOP_SIGNALS, stop), HAND_OVER_SIGNAL: hand_over}
    for number, call in calls.items():
        loop.add_signal_handler(number, call)
    try:
        yield
    finally:
        for number in calls:
            loop.remove_signal_handler(number)


async def _first_of(seconds: float, *events: asyncio.Event) -> None:
    """Return when one of the events is set, or after `seconds`."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


def _exit_code(jobs: Jobs) -> int:
    if not len(jobs.results):
        return 0
    ids = [attempt.job_id for attempt in itertools.islice(jobs.results, LOGGED_JOBS)]
    if jobs.health or not KEEPS_ENDS:
        message = "results could not be delivered nor kept, these jobs may run again"
    else:
        message = "results could not be delivered, the next start of this worker delivers them"
    log.error(message, count=len(jobs.results), job_ids=ids)
    return 1
