"""Hellos: joins waiting greetings into one commit, the one transaction that opens a session.

Nothing waits for a batch to fill: while one transaction is under way the next batch gathers. So thousands of
workers that come back at once have one connection to Postgres among them, and renewals, claims and results the rest.
"""

import asyncio
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import asyncpg

from orqestra.engine.core import Core
from orqestra.log import get_logger
from orqestra.model.errors import StorageUnavailable, Unavailable
from orqestra.model.report import AttemptRef
from orqestra.service import Service
from orqestra.store.database import Row, Statements, retry_conflicts

# Some milliseconds for Postgres and as many for us, so that no beat waits longer for this loop than for others.
BATCH: Final = 64
# Longer than any of our transactions has a row; who has one for longer stands still.
BRIEFLY_MS: Final = 250
ALONE_AT_ONCE: Final = 3

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Greeting:
    """What a worker says of itself when it opens a stream."""

    worker_id: UUID
    incarnation: UUID
    number: int
    name: str
    slots: int
    queues: tuple[str, ...]
    labels: tuple[str, ...]
    held: tuple[AttemptRef, ...]
    """Accepted and not finished."""
    finished: tuple[AttemptRef, ...]
    """Finished; the results follow."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A session that was opened, and what it took over, as pairs of job and fence."""

    session_id: int
    kept: frozenset[tuple[int, int]]


class _Request:
    """A greeting, and the future that its stream awaits."""

    def __init__(self, greeting: Greeting) -> None:
        self.greeting = greeting
        self.answer: asyncio.Future[Stored | None] = asyncio.get_running_loop().create_future()

    def succeed(self, stored: Stored | None) -> None:
        if not self.answer.done():
            self.answer.set_result(stored)

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class Hellos(Service):
    """The one who opens sessions on this server."""

    def __init__(self, core: Core, *, server_name: str, lease_ms: int) -> None:
        super().__init__("hellos", core.clock)
        self.server_name = server_name
        self.lease_ms = lease_ms
        self._database = core.database
        self._server_id = core.server_id
        self._waiting: list[_Request] = []
        self._alone: set[asyncio.Task[None]] = set()
        self._turns = asyncio.Semaphore(ALONE_AT_ONCE)

    async def store(self, greeting: Greeting) -> Stored | None:
        """Open a session in Postgres. None: the worker has a newer stream already.

        The session of a caller that goes away meanwhile is left to its lease, or to the worker's next Hello.

        Raises:
            StorageUnavailable: nothing was stored.
            OutcomeUnknown: it may have been.
        """
        if self.stopping:
            raise StorageUnavailable("the server is stopping; open the stream at another one")
        request = _Request(greeting)
        self._waiting.append(request)
        self.wake()
        return await request.answer

    async def run_once(self) -> float | None:
        """Store one batch of what waits."""
        batch = self._next_batch()
        if batch:
            await self._store_together(batch)
        return 0 if self._waiting else None

    async def finish(self) -> None:
        """Refuse what still waits; let end what is under way."""
        for request in self._waiting:
            request.fail(StorageUnavailable("the server is stopping; open the stream at another one"))
        await asyncio.gather(*self._alone)

    def _next_batch(self) -> list[_Request]:
        """Take one greeting of a worker at most, the earliest, whose stream is still there."""
        batch: dict[UUID, _Request] = {}
        later = []
        for request in self._waiting:
            worker_id = request.greeting.worker_id
            if request.answer.done():
                continue
            if len(batch) < BATCH and worker_id not in batch:
                batch[worker_id] = request
            else:
                later.append(request)
        self._waiting = later
        return list(batch.values())

    async def _store_together(self, batch: Sequence[_Request]) -> None:
        try:
            await self._answer(batch, wait_ms=BRIEFLY_MS)
        except asyncpg.PostgresError as error:
            # One of them waits for a row in other hands, or cannot be stored. Nobody else is to suffer for it.
            log.info("greetings are stored one by one", greetings=len(batch), reason=repr(error))
            for request in batch:
                task = asyncio.create_task(self._store_alone(request), name=f"hello {request.greeting.worker_id}")
                self._alone.add(task)
                task.add_done_callback(self._alone.discard)

    async def _store_alone(self, request: _Request) -> None:
        async with self._turns:
            try:
                await self._answer([request], wait_ms=0)
            except asyncpg.PostgresError as error:
                request.fail(error)

    async def _answer(self, batch: Sequence[_Request], *, wait_ms: int) -> None:
        """Store the greetings and answer; only errors that Postgres itself answers are left to the caller."""
        greetings = [request.greeting for request in batch]
        try:
            stored = await retry_conflicts(lambda: self._store(greetings, wait_ms))
        except Unavailable as error:
            for request in batch:
                request.fail(error)
        except asyncpg.PostgresError:
            raise
        except BaseException as error:
            for request in batch:
                request.fail(StorageUnavailable(f"the server failed while it opened the session: {error!r}"))
            raise
        else:
            for request in batch:
                request.succeed(stored.get(request.greeting.worker_id))

    async def _store(self, greetings: Sequence[Greeting], wait_ms: int) -> dict[UUID, Stored]:
        """Open the sessions of all whose number is higher than any before; `wait_ms` of 0: whatever locks there are."""
        async with self._database.transaction() as statements:
            await statements.fetch("wait_briefly", at_most_ms=wait_ms)
            ids = [each.worker_id for each in greetings]
            await statements.fetch("lock_workers", worker_ids=ids)
            rows = await statements.fetch("newest_sessions", worker_ids=ids)
            newest = {row["worker_id"]: row["number"] or 0 for row in rows}
            fresh = [each for each in greetings if each.number > newest[each.worker_id]]
            if not fresh:
                return {}
            opened = await self._open(statements, fresh)
            moved = await _resume(statements, fresh, opened)
        kept = defaultdict(set)
        for row in moved:
            kept[row["session_id"]].add((row["id"], row["fence"]))
        return {
            worker_id: Stored(session_id=session_id, kept=frozenset(kept[session_id]))
            for worker_id, session_id in opened.items()
        }

    async def _open(self, statements: Statements, greetings: Sequence[Greeting]) -> dict[UUID, int]:
        """Close the older sessions of these workers and open new ones."""
        ids = [each.worker_id for each in greetings]
        incarnations = [each.incarnation for each in greetings]
        await statements.fetch("replace_sessions", worker_ids=ids, incarnations=incarnations)
        rows = await statements.fetch(
            "open_sessions",
            worker_ids=ids,
            incarnations=incarnations,
            numbers=[each.number for each in greetings],
            names=[each.name for each in greetings],
            slots=[each.slots for each in greetings],
            queues=[json.dumps(each.queues) for each in greetings],
            labels=[json.dumps(each.labels) for each in greetings],
            server_id=self._server_id,
            server_name=self.server_name,
            lease_ms=self.lease_ms,
        )
        return {row["worker_id"]: row["id"] for row in rows}


async def _resume(statements: Statements, greetings: Sequence[Greeting], opened: dict[UUID, int]) -> list[Row]:
    """Move what the workers hold and have finished to their new sessions."""
    held = [(each.worker_id, ref) for each in greetings for ref in (*each.held, *each.finished)]
    if not held:
        return []
    return await statements.fetch(
        "resume_jobs",
        worker_ids=[worker_id for worker_id, _ in held],
        session_ids=[opened[worker_id] for worker_id, _ in held],
        ids=[ref.job_id for _, ref in held],
        fences=[ref.fence for _, ref in held],
        tokens=[ref.token for _, ref in held],
    )
