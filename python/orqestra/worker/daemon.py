"""A worker from start to drain: what it is made of, and how it ends."""

import asyncio
import itertools
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orqestra._dispatch import Executor, Spool
from orqestra.clock import Clock, SystemClock
from orqestra.log import get_logger
from orqestra.model import limits
from orqestra.worker.connection import Connection, Introduction
from orqestra.worker.environment import base_environment
from orqestra.worker.identity import Identity
from orqestra.worker.jobs import Jobs
from orqestra.worker.shell import Shell
from orqestra.worker.spool import open_spool

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
# Of those whose results are not delivered, so many are named.
LOGGED_JOBS: Final = 20
# What a command that the drain ends has between TERM and KILL, whatever its own grace is.
DRAIN_GRACE_SECONDS: Final = limits.GRACE_DEFAULT_SECONDS
# After KILL, until the executor has told the end of all: the time that pipes are still read, and some.
KILL_SECONDS: Final = 3.0
# After the end of the last command, until its result is acknowledged, durable or not.
DELIVER_SECONDS: Final = 2.0
# From one look at whether the disk answers to the next.
LOOK_SECONDS: Final = 1.0
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
    passed_on: tuple[str, ...] = ()
    """Variables of the worker's own environment that commands see."""


class Worker:
    """One worker in this process. `run` serves until `stop`; SIGTERM and SIGINT call it too."""

    def __init__(self, options: WorkerOptions, clock: Clock | None = None) -> None:
        self._options = options
        self._clock = clock or SystemClock()
        self._stopping = asyncio.Event()
        self._hurried = asyncio.Event()

    async def run(self) -> int:
        """Serve; return the exit code: 0, or 1 if results could not be delivered.

        Raises:
            StartFailed: the state directory can't be used.
        """
        identity = Identity.open(self._options.state_dir)
        try:
            return await self._work(identity)
        finally:
            identity.close()

    def stop(self) -> None:
        """Drain, then end. The second call does not wait for commands any longer."""
        if self._stopping.is_set():
            self._hurried.set()
        self._stopping.set()

    async def _work(self, identity: Identity) -> int:
        spool = open_spool(identity.spool_directory)
        executor = Executor(head_bytes=limits.OUTPUT_HEAD_BYTES, tail_bytes=limits.OUTPUT_TAIL_BYTES)
        base = base_environment(os.environb, self._options.passed_on)
        jobs = Jobs(self._options.slots, executor, Shell(base, identity.jobs_directory), spool)
        connection = self._connection(identity, jobs)

        def read_spool() -> None:
            if jobs.read_spool():
                connection.beat_now()

        try:
            with (
                _readable(executor, jobs.read_reports),
                _readable(spool, read_spool),
                _regularly(read_spool),
                _signals(self.stop),
            ):
                await self._serve(connection, jobs)
        finally:
            # Something runs here only after a fault, or if the kernel can't end it.
            executor.stop(kill=True)
            spool.close()
        return _exit_code(jobs)

    async def _serve(self, connection: Connection, jobs: Jobs) -> None:
        link = asyncio.create_task(connection.run(), name="connection")
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([link, stopping], return_when=asyncio.FIRST_COMPLETED)
        if stopping.done():
            await self._drain(jobs, connection)
            connection.close()
            await asyncio.wait([link], timeout=CLOSE_SECONDS)
        stopping.cancel()
        if link.done():
            link.result()

    def _connection(self, identity: Identity, jobs: Jobs) -> Connection:
        options = self._options
        introduction = Introduction(
            name=options.name or f"{socket.gethostname()}-{identity.index}",
            queues=options.queues,
            labels=options.labels,
        )
        log.info(
            "worker starting",
            worker_id=identity.worker_id,
            name=introduction.name,
            slots=options.slots,
            queues=list(options.queues),
            addresses=list(options.addresses),
        )
        return Connection(options.addresses, introduction, identity, jobs, clock=self._clock)

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
        # A disk that is slow must not be why the server never learns of what is known here.
        jobs.release_results()
        await _first_of(DELIVER_SECONDS, jobs.idle)


@contextmanager
def _readable(source: Executor | Spool, call: Callable[[], None]) -> Iterator[None]:
    """Have `call` called whenever there is something to be taken."""
    loop = asyncio.get_running_loop()
    loop.add_reader(source.fileno(), call)
    try:
        yield
    finally:
        loop.remove_reader(source.fileno())


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
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in STOP_SIGNALS:
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
    if jobs.health:
        message = "results could not be delivered nor kept, these jobs may run again"
    else:
        message = "results could not be delivered, the next start of this worker delivers them"
    log.error(message, count=len(jobs.results), job_ids=ids)
    return 1
