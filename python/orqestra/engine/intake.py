"""Intake: joins waiting submits into one commit.

Nothing waits for a batch to fill: while one statement is under way the next batch gathers. Only a batch that is
large already may wait a moment for workers that are about to take all of it (`holding`). A batch that
Postgres refuses for its data is bisected, so that only the guilty caller gets the error.
"""

import asyncio
from collections import deque
from typing import Final

import asyncpg

from orqestra.engine import packing
from orqestra.engine.core import Core
from orqestra.engine.direct import DirectMatch
from orqestra.engine.holding import Holding
from orqestra.engine.lanes import Lanes
from orqestra.engine.relay import Relay
from orqestra.engine.repairs import Repair
from orqestra.failpoint import Point, reached
from orqestra.log import get_logger
from orqestra.model import limits
from orqestra.model.errors import (
    InvalidInput,
    MaybeStored,
    OrqestraError,
    OutcomeUnknown,
    Overloaded,
    StorageUnavailable,
)
from orqestra.model.submission import Submission
from orqestra.service import Service
from orqestra.store.database import retry_conflicts, until_known
from orqestra.store.submitting import Batch, PlacedJob, Stored, submit_jobs

# What a waiting job costs besides its payload, roughly.
JOB_OVERHEAD_BYTES: Final = 512
RETRY_AFTER_MS: Final = 200

log = get_logger(__name__)


class _Request:
    """Jobs of one caller, stored all or none, and the future that the caller awaits."""

    def __init__(self, jobs: Submission) -> None:
        self.jobs = jobs
        self.size = jobs.payload_bytes + JOB_OVERHEAD_BYTES * len(jobs)
        self.answer: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        self.kinds: list[PlacedJob] = []

    def succeed(self, ids: list[int]) -> None:
        if not self.answer.done():
            self.answer.set_result(ids)

    def fail(self, error: OrqestraError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class Intake(Service):
    """The one writer of new jobs on this server."""

    def __init__(self, core: Core, lanes: Lanes, relay: Relay, direct: DirectMatch) -> None:
        super().__init__("intake", core.clock)
        self._database = core.database
        self._lanes = lanes
        self._relay = relay
        self._direct = direct
        self._holding = Holding(self, direct.matcher, relay)
        self._server_id = core.server_id
        self._repairs = core.repairs
        self._waiting: deque[_Request] = deque()
        self._waiting_bytes = 0

    async def submit(self, jobs: Submission) -> list[int]:
        """Store checked jobs, all or none, and return their ids in order, after the commit.

        Raises:
            Overloaded: too much is waiting; nothing was stored.
            StorageUnavailable: Postgres is away; nothing was stored.
            MaybeStored: the connection broke during the commit and not every job has a key.
            InvalidInput: Postgres or the limit of lanes refused the jobs.
        """
        if not len(jobs):
            return []
        if self.stopping:
            raise StorageUnavailable("the server is stopping; submit to another one or again in a moment")
        request = _Request(jobs)
        if self._waiting_bytes and self._waiting_bytes + request.size > limits.WAITING_SUBMIT_BYTES:
            raise Overloaded(
                f"{self._waiting_bytes} bytes of submits are waiting to be stored, the limit is "
                f"{limits.WAITING_SUBMIT_BYTES}; nothing was stored, try again",
                retry_after_ms=RETRY_AFTER_MS,
            )
        self._waiting.append(request)
        self._waiting_bytes += request.size
        self.wake()
        return await request.answer

    async def run_once(self) -> float | None:
        """Store one batch of what waits."""
        batch = self._next_batch()
        if batch:
            await self._place_and_store(batch)
        return 0 if self._waiting else None

    async def finish(self) -> None:
        """Store what was accepted before the stop."""
        while self._waiting:
            await self._place_and_store(self._next_batch())

    def _next_batch(self) -> list[_Request]:
        batch: list[_Request] = []
        jobs = size = 0
        while self._waiting:
            request = self._waiting[0]
            jobs += len(request.jobs)
            size += request.size
            if batch and (jobs > limits.BATCH_JOBS or size > limits.BATCH_BYTES):
                break
            batch.append(self._waiting.popleft())
        return batch

    async def _place_and_store(self, batch: list[_Request]) -> None:
        try:
            await self._store(await self._place(batch))
        except BaseException as error:
            unexpected = MaybeStored(f"the server failed while it stored the jobs: {error!r}")
            for request in batch:
                request.fail(unexpected)
            raise
        finally:
            self._waiting_bytes -= sum(request.size for request in batch)

    async def _place(self, batch: list[_Request]) -> list[_Request]:
        """Find the lanes; requests that cannot have one are answered and left out."""
        placed: list[_Request] = []
        for request in batch:
            try:
                request.kinds = [
                    PlacedJob(spec=kind, lane_id=await self._lanes.find(kind)) for kind in request.jobs.kinds
                ]
                placed.append(request)
            except OutcomeUnknown as error:
                request.fail(StorageUnavailable(str(error)))
            except OrqestraError as error:
                request.fail(error)
        return placed

    async def _store(self, batch: list[_Request]) -> None:
        if not batch:
            return
        try:
            stored = await retry_conflicts(lambda: self._insert(batch))
        except StorageUnavailable as error:
            for request in batch:
                request.fail(error)
        except OutcomeUnknown as error:
            await self._store_unknown(batch, error)
        except (
            asyncpg.DataError,
            asyncpg.IntegrityConstraintViolationError,
            asyncpg.ProgramLimitExceededError,
        ) as error:
            await self._bisect(batch, error)
        except asyncpg.PostgresError as error:
            log.exception("jobs refused by Postgres", sqlstate=error.sqlstate)
            for request in batch:
                request.fail(StorageUnavailable(f"Postgres refused to store: {error}"))
        else:
            _answer(batch, stored)

    async def _insert(self, batch: list[_Request]) -> list[int]:
        reached(Point.SUBMIT_BEFORE_TX)
        jobs = Batch.joining((request.jobs, request.kinds) for request in batch)
        if len(jobs) <= limits.BATCH_JOBS:
            return self._hand_over([await self._insert_at_once(jobs)])
        chunks = [jobs.part(at, at + limits.BATCH_JOBS) for at in range(0, len(jobs), limits.BATCH_JOBS)]
        with self._relay.on_its_way():
            async with self._database.transaction(planned_once=True) as statements:
                parts = [await submit_jobs(statements, chunk, server_id=self._server_id) for chunk in chunks]
            return self._hand_over(parts)

    async def _insert_at_once(self, jobs: Batch) -> Stored:
        await self._holding.hold(jobs)
        matching = self._direct.matching()
        try:
            async with self._direct.storing(matching, self._database.connection(planned_once=True)) as statements:
                return await matching.submit(statements, jobs)
        except OutcomeUnknown:
            if matching.found is None:
                raise
            self._repairs.count(Repair.SUBMIT_UNKNOWN)
            return matching.found

    def _hand_over(self, parts: list[Stored]) -> list[int]:
        for stored in parts:
            for outbox_id, entries in stored.hints:
                self._relay.hand_over(outbox_id, entries)
                self._holding.stored(packing.count(entries))
        return [job_id for stored in parts for job_id in stored.ids if job_id is not None]

    async def _bisect(self, batch: list[_Request], error: asyncpg.PostgresError) -> None:
        if len(batch) == 1:
            batch[0].fail(InvalidInput("job", f"Postgres refuses it: {error}"))
            return
        middle = len(batch) // 2
        await self._store(batch[:middle])
        await self._store(batch[middle:])

    async def _store_unknown(self, batch: list[_Request], error: OutcomeUnknown) -> None:
        """Run again what has keys; the callers of the rest are told that it may have been stored."""
        again = [request for request in batch if request.jobs.is_repeatable]
        for request in batch:
            if not request.jobs.is_repeatable:
                request.fail(MaybeStored(f"{error}; the jobs may have been stored, look before you submit again"))
        self._repairs.count(Repair.SUBMIT_UNKNOWN)
        # What was stored without an answer was not handed over either.
        self._relay.look_for_own()
        if not again:
            return
        try:
            stored = await until_known(lambda: self._insert(again), unknown=error)
        except OutcomeUnknown:
            for request in again:
                request.fail(MaybeStored(f"{error}; it has a key, so that submitting it again is safe"))
        else:
            self._relay.look_for_own()
            _answer(again, stored)


def _answer(batch: list[_Request], ids: list[int]) -> None:
    reached(Point.SUBMIT_BEFORE_REPLY)
    at = 0
    for request in batch:
        request.succeed(ids[at : at + len(request.jobs)])
        at += len(request.jobs)
