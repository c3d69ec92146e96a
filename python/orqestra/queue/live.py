"""Live output between servers, over Redis' pub/sub: who wants it, and what was written.

A wish goes to all servers, and the one that has the session serves it. Chunks go to the servers that asked,
each on a channel of its own: to those who don't follow, nothing is sent. Both may be lost.
"""

import struct
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis

from orqestra.model.live import LiveChunk
from orqestra.queue.connection import away_as_error

SUBSCRIBE_WAIT_SECONDS: Final = 0.2
# Job, fence, stream, offset, total; then the bytes.
HEADER: Final = struct.Struct(">qqBqq")


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A server wants the live output of an attempt from these offsets on, or with `stop` no more of it."""

    server: str
    session_id: int
    job_id: int
    fence: int
    offsets: tuple[int, int] = (0, 0)
    stop: bool = False


class LiveChannel:
    """What one server says and hears of live output. Every method raises HintsUnavailable when Redis does not serve."""

    def __init__(self, redis: Redis, *, prefix: str, boot_id: str) -> None:
        self._redis = redis
        self._prefix = prefix
        self.server = boot_id

    async def send(self, wishes: Iterable[Wish], chunks: Iterable[tuple[str, LiveChunk]]) -> None:
        """Publish wishes to all, and chunks each to the server that it is for."""
        async with away_as_error(), self._redis.pipeline(transaction=False) as pipeline:
            for wish in wishes:
                pipeline.publish(f"{self._prefix}follow", _encode_wish(wish))
            for server, chunk in chunks:
                pipeline.publish(f"{self._prefix}live:{server}", _encode_chunk(chunk))
            await pipeline.execute()

    async def messages(self) -> AsyncIterator[Wish | LiveChunk | None]:
        """Yield what others ask, and what this server asked for; None at least once a second."""
        async with away_as_error(), self._redis.pubsub(ignore_subscribe_messages=True) as subscription:
            await subscription.subscribe(f"{self._prefix}follow", f"{self._prefix}live:{self.server}")
            while True:
                raw = await subscription.get_message(timeout=SUBSCRIBE_WAIT_SECONDS)
                yield None if raw is None else self._read(raw)

    def _read(self, raw: dict[str, Any]) -> Wish | LiveChunk | None:
        if raw["channel"].decode() != f"{self._prefix}follow":
            return _decode_chunk(raw["data"])
        wish = _decode_wish(raw["data"])
        return None if wish.server == self.server else wish


def _encode_wish(wish: Wish) -> str:
    numbers = (wish.session_id, wish.job_id, wish.fence, *wish.offsets, int(wish.stop))
    return f"{wish.server} {' '.join(map(str, numbers))}"


def _decode_wish(data: bytes) -> Wish:
    server, *numbers = data.decode().split()
    session_id, job_id, fence, stdout, stderr, stop = map(int, numbers)
    return Wish(
        server=server,
        session_id=session_id,
        job_id=job_id,
        fence=fence,
        offsets=(stdout, stderr),
        stop=bool(stop),
    )


def _encode_chunk(chunk: LiveChunk) -> bytes:
    return HEADER.pack(chunk.job_id, chunk.fence, chunk.stream, chunk.offset, chunk.total) + chunk.data


def _decode_chunk(data: bytes) -> LiveChunk:
    job_id, fence, stream, offset, total = HEADER.unpack_from(data)
    return LiveChunk(job_id=job_id, fence=fence, stream=stream, offset=offset, total=total, data=data[HEADER.size :])
