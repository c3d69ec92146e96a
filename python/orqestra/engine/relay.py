"""Relay: brings committed hints from the outbox to Redis, at least once."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from orqestra._dispatch import outbox
from orqestra.engine.core import Core
from orqestra.engine.repairs import Repair
from orqestra.failpoint import Point, reached
from orqestra.log import get_logger
from orqestra.model.errors import HintsUnavailable, Unavailable
from orqestra.service import Service

# Twice the time after which a server has deleted what it relayed, and some.
OTHERS_AFTER_MS: Final = 1500
AWAY_AFTER_MS: Final = 10_000
ROWS: Final = 1000
TIDY_SECONDS: Final = 0.5

log = get_logger(__name__)


class Relay(Service):
    """Own rows go right after their commit, those that their server did not relay soon after."""

    def __init__(self, core: Core, wake_lanes: Callable[[Sequence[int]], None]) -> None:
        super().__init__("relay", core.clock)
        self._database = core.database
        self._hints = core.hints
        self._link = core.link
        self._pg_clock = core.pg_clock
        self._repairs = core.repairs
        self._wake_lanes = wake_lanes
        self._own: deque[tuple[int, bytes]] = deque()
        self._relayed: list[int] = []
        self._server_id = core.server_id
        self._may_lack_own = False
        self._pushes = 0
        self._tidied_at = core.clock.monotonic()

    @property
    def is_idle(self) -> bool:
        """Whether no hint of this server is on its way: none waits here, and none is being pushed."""
        return not (self._own or self._pushes or self._may_lack_own)

    def hand_over(self, outbox_id: int, entries: bytes) -> None:
        """Take a row that has just been committed here."""
        self._own.append((outbox_id, entries))
        self.wake()

    def look_for_own(self) -> None:
        """A row of this server may have been committed without having been handed over: look for it now."""
        self._may_lack_own = True
        self.wake()

    async def run_once(self) -> float | None:
        """Push what waits; twice a second look for the rows of others and delete what is relayed."""
        rows = [self._own.popleft() for _ in range(min(len(self._own), ROWS))]
        if rows:
            await self._push(rows)
        if self._may_lack_own:
            await self._relay_own()
        if self.clock.monotonic() - self._tidied_at >= TIDY_SECONDS:
            self._tidied_at = self.clock.monotonic()
            await self._tidy()
        return 0 if self._own or self._may_lack_own else TIDY_SECONDS

    async def finish(self) -> None:
        """Push and delete what is left, if that is possible; otherwise another server does."""
        try:
            while self._own:
                await self._push([self._own.popleft()])
            await self._delete()
        except Unavailable as error:
            log.info("rows left in the outbox", reason=str(error))

    @contextmanager
    def on_its_way(self) -> Iterator[None]:
        """Until the end of the block, something is on its way that nobody is to pass."""
        self._pushes += 1
        try:
            yield
        finally:
            self._pushes -= 1

    async def _push(self, rows: Sequence[tuple[int, bytes]]) -> None:
        with self.on_its_way():
            await self._push_rows(rows)

    async def _push_rows(self, rows: Sequence[tuple[int, bytes]]) -> None:
        reached(Point.RELAY_READ)
        now_ms = self._pg_clock.now_ms()
        pushes = outbox.drain([entries for _, entries in rows], now_ms)
        if self._link.up:
            try:
                for push in pushes:
                    if not await self._hints.push(push, now_ms):
                        self._link.lost("the epoch is missing")
                        break
                else:
                    self._relayed += [outbox_id for outbox_id, _ in rows]
                    reached(Point.RELAY_PUSHED)
            except HintsUnavailable as error:
                self._link.lost(str(error))
        # Without Redis the rows wait in the outbox, and the dispatcher looks into Postgres.
        self._wake_lanes([lane for push in pushes for lane in push.lanes])

    async def _relay_own(self) -> None:
        with self.on_its_way():
            # Before the look: what is committed while it is under way it may not see, and that is asked for anew.
            self._may_lack_own = False
            try:
                # First what is pushed already, so that it is not pushed again.
                await self._delete()
                rows = await self._database.insist("take_own_outbox", server_id=self._server_id, at_most=ROWS)
            except BaseException:
                self._may_lack_own = True
                raise
            if rows:
                await self._push([(row["id"], row["entries"]) for row in rows])
            if len(rows) == ROWS and self._link.up:
                # There may be more. Without Redis they stay, and the same would come again.
                self._may_lack_own = True

    async def _tidy(self) -> None:
        await self._delete()
        if self._link.up:
            rows = await self._database.insist("take_outbox", older_ms=OTHERS_AFTER_MS, at_most=ROWS)
            if rows:
                # A row is as old as its statement, which may have waited long for a lock: then it is one of our own.
                others = sum(row["server_id"] != self._server_id for row in rows)
                self._repairs.count(Repair.OUTBOX_OF_OTHERS, others)
                await self._push([(row["id"], row["entries"]) for row in rows])
                await self._delete()
        else:
            async with self._database.transaction() as statements:
                await statements.fetch("commit_later")
                await statements.fetch("drop_old_outbox", older_ms=AWAY_AFTER_MS, at_most=ROWS * 10)

    async def _delete(self) -> None:
        if not self._relayed:
            return
        ids, self._relayed = self._relayed, []
        try:
            async with self._database.transaction() as statements:
                await statements.fetch("commit_later")
                await statements.fetch("delete_outbox", ids=ids)
        except BaseException:
            self._relayed += ids
            raise
