"""The hints in Redis: push, take, refill, recover. Each is one Lua script, documented in `lua/`."""

import secrets
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

from redis.asyncio import Redis
from redis.commands.core import AsyncScript

from orqestra._dispatch import Demand, Push
from orqestra.queue.connection import away_as_error
from orqestra.queue.live import LiveChannel

PROMOTE_HINTS: Final = 1000
HORIZON_MS: Final = 10 * 60 * 1000
FORGOTTEN_MS: Final = 2000
# A little less than the second between two audits of one server.
AUDIT_MS: Final = 900
AUDIT_ADDS: Final = 100
# A chunk follows the other within milliseconds; for so long a server that died keeps others from a lane.
FILLING_MS: Final = 1000
# In the place of the server that woke lanes: one that pushes knows it, what these find is news to it as well.
NOBODY: Final = "-"
SUBSCRIBE_WAIT_SECONDS: Final = 0.2
# Together a million hints, about 100 MB, whatever waits in Postgres and in however many lanes.
READY_HINTS: Final = 750_000
DELAYED_HINTS: Final = 250_000


@dataclass(frozen=True, kw_only=True)
class Take:
    """What one take gave: hints per demand in the order asked, and what it learned on the way."""

    hints: tuple[bytes, ...]
    next_due_ms: int | None
    promoted: tuple[int, ...]
    empty: tuple[int, ...]
    partial: tuple[tuple[int, str], ...]


@dataclass(frozen=True, kw_only=True)
class Wake:
    """A message of another server: these lanes got hints; none named: something delayed came in."""

    lanes: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Cancelled:
    """A message of another server: these running jobs are to be cancelled."""

    ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Changed:
    """A message of any server: these jobs have changed."""

    ids: tuple[int, ...]


Message = Wake | Cancelled | Changed


class Hints:
    """One namespace of hints. Every method raises HintsUnavailable when Redis does not serve.

    `window` is how many hints a lane holds at most. `live` is the channel of live output beside them.
    """

    def __init__(self, redis: Redis, *, namespace: str, boot_id: str, window: int) -> None:
        self._redis = redis
        self._boot_id = boot_id
        self._most = window
        self.window = min(window, READY_HINTS)
        self._prefix = f"{{{namespace}}}:"
        self._keys = [f"{self._prefix}epoch"]
        self.live = LiveChannel(redis, prefix=self._prefix, boot_id=boot_id)
        self._scripts = {name: self._load(name) for name in _SCRIPTS}

    def share(self, lanes: int) -> None:
        """Divide what Redis may hold among so many lanes."""
        self.window = max(1, min(self._most, READY_HINTS // max(1, lanes)))

    async def push(self, push: Push, now_ms: int) -> bool:
        """Add hints to their lanes. False: the epoch is missing and nothing was done."""
        arguments = [
            self.window,
            now_ms + HORIZON_MS,
            _generation(),
            push.ready,
            push.delayed,
            self._boot_id,
            DELAYED_HINTS,
        ]
        return bool(await self._run("push", arguments) == 1)

    async def take(self, number: int, now_ms: int, *, done: Iterable[int], demands: Sequence[Demand]) -> Take | None:
        """Take hints for each demand; the same number again gives the same. None: the epoch is missing."""
        fields = " ".join(self._field(take) for take in done)
        arguments: list[Any] = [self._field(number), now_ms, fields, max(1, self.window // 4), PROMOTE_HINTS]
        for demand in demands:
            arguments += [demand.budget, demand.lanes]
        status, *reply = await self._run("take", arguments)
        return _read_take(reply) if status == 1 else None

    async def mark(self, lanes: Iterable[int], *, set_epoch: bool) -> None:
        """Mark lanes partial; with `set_epoch` (then all lanes are named) Redis counts as filled."""
        packed = "".join(f"{lane:08x}" for lane in lanes)
        await self._run("mark", [_generation(), int(set_epoch), packed])

    async def trim(self, lanes: Iterable[int]) -> int:
        """Cut lanes down to the window as it is now; returns how many hints were cut."""
        packed = "".join(f"{lane:08x}" for lane in lanes)
        return int(await self._run("trim", [self.window, _generation(), packed]))

    async def begin_refill(self, lane: int, name: str) -> bool:
        """Announce a refill of a partial lane, before Postgres is read. False: it is whole or being refilled."""
        return await self._refill(lane, name, "begin", b"")

    async def add_refill(self, lane: int, name: str, hints: bytes) -> bool:
        """Add a chunk. False: the lane is not partial any more, stop."""
        return await self._refill(lane, name, "add", hints)

    async def end_refill(self, lane: int, name: str, *, whole: bool) -> bool:
        """End the refill; a lane that is whole with it, and of which nothing was left out, is no longer partial."""
        return await self._refill(lane, name, "whole" if whole else "more", b"")

    async def recover(self) -> int:
        """Push back what was taken and forgotten for two seconds; returns how many hints."""
        return int(await self._run("recover", [FORGOTTEN_MS, NOBODY]))

    async def is_auditor(self) -> bool:
        """Return whether it is this server that audits in this second."""
        async with away_as_error():
            return bool(await self._redis.set(f"{self._prefix}audit", self._boot_id, nx=True, px=AUDIT_MS))

    async def audit(self, lane: int, hints: bytes) -> int:
        """Add what a lane lacks of the best hints it should have; returns how many it lacked."""
        arguments = [f"{lane:08x}", hints, AUDIT_ADDS, _generation(), NOBODY]
        return int(await self._run("audit", arguments))

    async def forget(self, hints: bytes) -> None:
        """Remove the hints of cancelled jobs."""
        await self._run("forget", [hints])

    async def publish_cancel(self, ids: Sequence[int]) -> None:
        """Tell the other servers which running jobs are to be cancelled."""
        async with away_as_error():
            await self._redis.publish(f"{self._prefix}cancel", _join(ids))

    async def publish_changed(self, ids: Sequence[int]) -> int:
        """Tell whoever watches which jobs have changed; return how many servers heard it, this one included."""
        async with away_as_error():
            return int(await self._redis.publish(f"{self._prefix}changed", f"{self._boot_id} {_join(ids)}"))

    async def policy(self) -> str | None:
        """Return the `maxmemory-policy`, or None where the service does not tell."""
        async with away_as_error():
            await self._redis.ping()
        try:
            async with away_as_error():
                found = await self._redis.config_get("maxmemory-policy")
        except Exception:  # noqa: BLE001  managed services refuse CONFIG in many ways; the answer is only advice
            return None
        value = next(iter(found.values()), None)
        return value.decode() if isinstance(value, bytes) else value

    async def identity(self) -> str:
        """Return what tells this run of this Redis from every other."""
        async with away_as_error():
            return str((await self._redis.info("server")).get("run_id", ""))

    async def messages(self, *, changes: bool) -> AsyncIterator[Message | None]:
        """Yield what other servers publish, and None at least once a second."""
        channels = ["wake", "cancel", *(["changed"] if changes else [])]
        async with away_as_error(), self._redis.pubsub(ignore_subscribe_messages=True) as subscription:
            await subscription.subscribe(*(f"{self._prefix}{channel}" for channel in channels))
            while True:
                raw = await subscription.get_message(timeout=SUBSCRIBE_WAIT_SECONDS)
                yield None if raw is None else self._read_message(raw)

    async def _refill(self, lane: int, name: str, phase: str, hints: bytes) -> bool:
        arguments = [f"{lane:08x}", name, phase, hints, self.window, self._boot_id, FILLING_MS, _generation()]
        return bool(await self._run("refill", arguments) == 1)

    def _read_message(self, raw: dict[str, Any]) -> Message | None:
        channel = raw["channel"].decode().removeprefix(self._prefix)
        text = raw["data"].decode()
        match channel:
            case "cancel":
                return Cancelled(ids=_split(text))
            case _:
                sender, _, numbers = text.partition(" ")
                if sender == self._boot_id:
                    return None
                return Wake(lanes=_split(numbers)) if channel == "wake" else Changed(ids=_split(numbers))

    def _field(self, number: int) -> str:
        return f"{self._boot_id}:{number}"

    def _load(self, name: str) -> AsyncScript:
        text = files("orqestra.queue").joinpath("lua", f"{name}.lua").read_text("utf-8")
        return self._redis.register_script(text)

    async def _run(self, name: str, arguments: Sequence[Any]) -> Any:
        async with away_as_error():
            return await self._scripts[name](keys=self._keys, args=[self._prefix, *arguments])


_SCRIPTS: Final = ("push", "take", "mark", "refill", "recover", "audit", "forget", "trim")


def _read_take(reply: list[Any]) -> Take:
    due, promoted, empty, partial, *hints = reply
    next_due_ms = int(float(due))
    return Take(
        hints=tuple(hints),
        next_due_ms=None if next_due_ms < 0 else next_due_ms,
        promoted=_split(promoted.decode()),
        empty=_split(empty.decode()),
        partial=tuple(_lane_and_generation(text) for text in partial.decode().split(",") if text),
    )


def _lane_and_generation(text: str) -> tuple[int, str]:
    lane, _, generation = text.partition(" ")
    return int(lane), generation


def _generation() -> str:
    return str(secrets.randbits(64))


def _join(ids: Sequence[int]) -> str:
    return ",".join(map(str, ids))


def _split(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part)
