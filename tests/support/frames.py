"""A way to a server on which each HTTP/2 frame is noted that passes, in either direction."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

DATA: Final = 0x0
SETTINGS: Final = 0x4
PING: Final = 0x6
ACK: Final = 0x1
INITIAL_WINDOW_SIZE: Final = 0x4
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_BYTES: Final = 9
SETTING_BYTES: Final = 6


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A frame that has passed; `up` if it came from the client."""

    up: bool
    kind: int
    flags: int
    payload: bytes

    @property
    def settings(self) -> dict[int, int]:
        """The settings that a SETTINGS frame tells, by number."""
        parts = [self.payload[at : at + SETTING_BYTES] for at in range(0, len(self.payload), SETTING_BYTES)]
        return {int.from_bytes(part[:2]): int.from_bytes(part[2:]) for part in parts}


class Tap:
    """The noted frames, and the address that leads past it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.frames: list[Frame] = []

    def settings(self, *, up: bool) -> dict[int, int]:
        """Return what one side has set by now: each SETTINGS frame tells what has changed."""
        told = [frame.settings for frame in self.seen(SETTINGS, up=up) if not frame.flags & ACK]
        return {number: value for settings in told for number, value in settings.items()}

    def seen(self, kind: int, *, up: bool) -> list[Frame]:
        """Return the frames of a kind that have passed in one direction."""
        return [frame for frame in self.frames if frame.kind == kind and frame.up is up]


@asynccontextmanager
async def tapped(address: str) -> AsyncIterator[Tap]:
    """Lead connections to `address`, a HOST:PORT, past a tap."""
    host, _, port = address.rpartition(":")
    connections: set[asyncio.Task[None]] = set()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, int(port))
        async with asyncio.TaskGroup() as pumps:
            pumps.create_task(_pump(tap, reader, back, up=True))
            pumps.create_task(_pump(tap, there, writer, up=False))

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(connect(reader, writer))
        connections.add(connection)
        connection.add_done_callback(connections.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    tap = Tap("127.0.0.1:{1}".format(*server.sockets[0].getsockname()))
    try:
        yield tap
    finally:
        server.close()
        open_ones = list(connections)
        for connection in open_ones:
            connection.cancel()
        await asyncio.gather(*open_ones, return_exceptions=True)


async def _pump(tap: Tap, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
    try:
        if up:
            writer.write(await reader.readexactly(len(PREFACE)))
        while True:
            header = await reader.readexactly(HEADER_BYTES)
            payload = await reader.readexactly(int.from_bytes(header[:3]))
            tap.frames.append(Frame(up=up, kind=header[3], flags=header[4], payload=payload))
            writer.write(header + payload)
    except (asyncio.IncompleteReadError, OSError):
        return
    finally:
        writer.close()
