"""A link between two processes that can be made bad: a proxy for TCP and Unix sockets with toxics.

A black hole holds what comes instead of throwing it away, as a network does that lost its route: both
ends go on believing in the connection, and once the hole is closed everything arrives late.
"""

import asyncio
import random
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

CHUNK_BYTES = 64 * 1024
# Off with a reset instead of a polite end: pending data is dropped.
RESET = struct.pack("ii", 1, 0)
CONNECT_SECONDS = 2.0


class Way(Enum):
    """The two directions of a link, seen from the end that connects."""

    UP = "up"
    DOWN = "down"


@dataclass(kw_only=True)
class Toxics:
    """What is wrong with a link now; as it is made, nothing is."""

    refuse: bool = False
    """New connections are reset."""
    latency_seconds: float = 0.0
    """On the way of each chunk, with up to as much again by chance."""
    bytes_per_second: float | None = None
    slice_bytes: int | None = None
    """Chunks arrive in pieces of this size."""
    holes: set[Way] = field(default_factory=set)
    """Directions in which nothing arrives."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where a proxy connects to: a Unix socket, or a host and a port."""

    path: Path | None = None
    port: int = 0


class Proxy:
    """One link. `targets` is asked for each new connection; the first that accepts is taken."""

    def __init__(self, targets: Callable[[], Sequence[Target]], *, seed: int = 0) -> None:
        self._targets = targets
        self._random = random.Random(seed)
        self._server: asyncio.Server | None = None
        # In the order in which they were made.
        self._connections: dict[_Connection, None] = {}
        self._changed = asyncio.Event()
        self._reply_lost = asyncio.Event()
        self._reply_lost.set()
        self._passes = 0
        self.toxics = Toxics()
        self.port = 0

    async def open(self, path: Path | None = None) -> None:
        """Listen on the Unix socket `path`, or else on a free port of the loopback."""
        if path is not None:
            self._server = await asyncio.start_unix_server(self._connected, path)
        else:
            self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Listen no more and end all connections."""
        if self._server is not None:
            self._server.close()
        self.reset()
        await asyncio.gather(*(each.ended.wait() for each in list(self._connections)))

    def set(self, toxics: Toxics) -> None:
        """Change what is wrong, for old and new connections alike."""
        self.toxics = toxics
        self._changed.set()
        self._changed = asyncio.Event()

    def heal(self) -> None:
        """Make the link good again: what a hole held back arrives now."""
        self.set(Toxics())

    def reset(self) -> None:
        """End all connections with a reset, at both ends."""
        for connection in list(self._connections):
            connection.reset()

    @property
    def connected(self) -> int:
        """How many connections there are."""
        return len(self._connections)

    def reset_newest(self) -> None:
        """End the connection that was made last, and no other, with a reset at both ends."""
        next(reversed(self._connections)).reset()

    def lose_reply(self, passes: int = 0) -> asyncio.Event:
        """Swallow what answers the next chunk that goes up, after `passes` more, and reset; set once that is done.

        Connections that are made until then are waited for as well.
        """
        self._reply_lost = asyncio.Event()
        self._passes = passes
        for connection in list(self._connections):
            connection.lose_reply(passes, self._reply_lost)
        return self._reply_lost

    async def closed_hole(self, way: Way) -> None:
        """Return once there is no hole in that direction."""
        while way in self.toxics.holes:
            await self._changed.wait()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.toxics.refuse:
            _reset(writer)
            return
        await self.closed_hole(Way.UP)
        opened = await self._dial()
        if opened is None:
            _reset(writer)
            return
        connection = _Connection(self, (reader, writer), opened, self._random)
        self._connections[connection] = None
        if not self._reply_lost.is_set():
            connection.lose_reply(self._passes, self._reply_lost)
        try:
            await connection.run()
        finally:
            self._connections.pop(connection, None)

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for target in self._targets():
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(CONNECT_SECONDS):
                    if target.path is not None:
                        return await asyncio.open_unix_connection(target.path)
                    return await asyncio.open_connection("127.0.0.1", target.port)
        return None


class Bundle:
    """Several links that are hurt and healed as one."""

    def __init__(self, proxies: Sequence[Proxy]) -> None:
        self.proxies = tuple(proxies)

    @property
    def ports(self) -> list[int]:
        """Where they listen."""
        return [proxy.port for proxy in self.proxies]

    def set(self, toxics: Toxics) -> None:
        """Change what is wrong with all of them."""
        for proxy in self.proxies:
            proxy.set(toxics)

    def heal(self) -> None:
        """Make all of them good again."""
        for proxy in self.proxies:
            proxy.heal()

    def reset(self) -> None:
        """End all connections with a reset."""
        for proxy in self.proxies:
            proxy.reset()

    async def close(self) -> None:
        """Listen no more and end all connections."""
        await asyncio.gather(*(proxy.close() for proxy in self.proxies))


class _Connection:
    """One connection through a proxy: two pumps that end together."""

    def __init__(
        self,
        proxy: Proxy,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        chance: random.Random,
    ) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._random = chance
        self._passes: int | None = None
        self._lost = asyncio.Event()
        self.ended = asyncio.Event()

    async def run(self) -> None:
        """Pass on what comes until either end has ended."""
        pumps = [
            asyncio.create_task(self._pump(Way.UP, self._client[0], self._server[1])),
            asyncio.create_task(self._pump(Way.DOWN, self._server[0], self._client[1])),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for _, writer in (self._client, self._server):
                writer.close()
            self.ended.set()

    def reset(self) -> None:
        """End it with a reset at both ends."""
        for _, writer in (self._client, self._server):
            _reset(writer)

    def lose_reply(self, passes: int, done: asyncio.Event) -> None:
        """Swallow the answer to a chunk that goes up from now on."""
        self._passes = passes
        self._lost = done

    async def _pump(self, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError):
            while data := await reader.read(CHUNK_BYTES):
                await self._proxy.closed_hole(way)
                if self._swallows(way):
                    self._lost.set()
                    self.reset()
                    return
                await self._pass_on(data, writer)

    def _swallows(self, way: Way) -> bool:
        if self._passes is None:
            return False
        if way is Way.UP:
            self._passes -= 1
            return False
        return self._passes < 0

    async def _pass_on(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        toxics = self._proxy.toxics
        if toxics.latency_seconds:
            await asyncio.sleep(toxics.latency_seconds * (1 + self._random.random()))
        if toxics.bytes_per_second:
            await asyncio.sleep(len(data) / toxics.bytes_per_second)
        size = toxics.slice_bytes or len(data)
        for at in range(0, len(data), size):
            writer.write(data[at : at + size])
            await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    plain: socket.socket | None = writer.get_extra_info("socket")
    if plain is not None and plain.family != socket.AF_UNIX:
        with suppress(OSError):
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
