"""A way to Postgres that can be cut: before a statement arrives, or between its commit and its answer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

SOCKET = ".s.PGSQL.5432"
READY = b"Z"
END_OF_BATCH = b"SQ"
LENGTH_BYTES = 4


class LossyPostgres:
    """Listens on a Unix socket of its own and passes on what it hears, message by message."""

    def __init__(self, url: str, directory: Path) -> None:
        parts = urlsplit(url)
        self._target = f"{parse_qs(parts.query)['host'][0]}/{SOCKET}"
        self._socket = directory / SOCKET
        self.url = parts._replace(query=f"host={quote(str(directory))}&port=5432").geturl()
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self.doomed: bytes | None = None
        """Text of a statement; the connection that runs it next is cut."""
        self.after_commit = True
        """Whether that is once Postgres has run it, or before it got there."""
        self.cuts = 0
        self.cut_now = asyncio.Event()

    def lose(self, statement: str, *, after_commit: bool) -> None:
        """Cut the connection that next runs a statement with this text in it, once."""
        self.doomed, self.after_commit = statement.encode(), after_commit
        self.cut_now.clear()

    async def open(self) -> None:
        """Listen, at first or again."""
        self._server = await asyncio.start_unix_server(self._connected, self._socket)

    async def close(self) -> None:
        """Be gone: end all connections and refuse new ones."""
        if self._server is not None:
            self._server.close()
            self._socket.unlink(missing_ok=True)
            for link in list(self._links):
                link.cut()
            await asyncio.gather(*(link.ended.wait() for link in list(self._links)))
            self._server = None

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(self, reader, writer)
        self._links.add(link)
        try:
            await link.run(self._target)
        finally:
            self._links.discard(link)


class _Link:
    """One connection through the proxy."""

    def __init__(self, owner: LossyPostgres, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._owner = owner
        self._reader = reader
        self._writer = writer
        self._statements: dict[bytes, bytes] = {}
        self._doomed = False
        self.ended = asyncio.Event()

    async def run(self, target: str) -> None:
        reader, self._upstream = await asyncio.open_unix_connection(target)
        back = asyncio.create_task(self._pass_back(reader))
        try:
            await self._pass_on()
        except (asyncio.IncompleteReadError, OSError):
            pass  # one of the two ends is gone, so the other one has to go
        finally:
            self.cut()
            await back
            self.ended.set()

    def cut(self) -> None:
        for writer in (self._writer, self._upstream):
            if not writer.is_closing():
                writer.transport.abort()

    async def _pass_on(self) -> None:
        """Client to Postgres: the start-up message, then messages of one byte for the kind and a length."""
        length = await self._reader.readexactly(LENGTH_BYTES)
        self._upstream.write(length + await self._reader.readexactly(int.from_bytes(length) - LENGTH_BYTES))
        while True:
            kind = await self._reader.readexactly(1)
            length = await self._reader.readexactly(LENGTH_BYTES)
            body = await self._reader.readexactly(int.from_bytes(length) - LENGTH_BYTES)
            self._look_at(kind, body)
            if self._doomed and not self._owner.after_commit:
                self._note_cut()
                return
            self._upstream.write(kind + length + body)
            await self._upstream.drain()

    def _look_at(self, kind: bytes, body: bytes) -> None:
        """Learn the texts of prepared statements and notice the doomed one being run."""
        if kind == b"P":
            name, text, _ = body.split(b"\0", 2)
            self._statements[name] = text
            return
        running = body if kind == b"Q" else self._statements.get(body.split(b"\0", 2)[1], b"") if kind == b"B" else b""
        if self._owner.doomed is not None and self._owner.doomed in running:
            self._owner.doomed = None
            self._doomed = True

    async def _pass_back(self, reader: asyncio.StreamReader) -> None:
        """Postgres to client, up to the answer that is to be lost."""
        try:
            while True:
                kind = await reader.readexactly(1)
                length = await reader.readexactly(LENGTH_BYTES)
                body = await reader.readexactly(int.from_bytes(length) - LENGTH_BYTES)
                if not self._doomed:
                    self._writer.write(kind + length + body)
                    await self._writer.drain()
                elif kind == READY:
                    self._note_cut()
                    break
        except (asyncio.IncompleteReadError, OSError):
            pass  # as in `run`
        self.cut()

    def _note_cut(self) -> None:
        self._owner.cuts += 1
        self._owner.cut_now.set()


@asynccontextmanager
async def lossy_postgres(url: str, directory: Path) -> AsyncIterator[LossyPostgres]:
    """Yield a way to the database `url` that works until it is told otherwise."""
    proxy = LossyPostgres(url, directory)
    await proxy.open()
    try:
        yield proxy
    finally:
        await proxy.close()
