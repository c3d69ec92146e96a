"""A way to Postgres that can be cut: before a statement arrives, while it runs, or before its answer comes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

SOCKET = ".s.PGSQL.5432"
READY = b"Z"
END_OF_BATCH = b"SQ"
BACKEND_KEY = b"K"
LENGTH_BYTES = 4
PID_BYTES = 4
# Higher than any of Linux.
POOLERS_PID = 2**22 + 1


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
        self.following = b""
        self.for_good = False
        self.cuts = 0
        self.cut_now = asyncio.Event()
        self.held_text: bytes | None = None
        self.held = asyncio.Event()
        self.lingers = False
        """Whether connections that Postgres has ended look open to the client, though it is told the reason."""
        self.lingering = asyncio.Event()
        self.hides_pids = False
        """Whether it tells pids of its own, as a pooler does."""
        self.heard: list[bytes] = []
        """The texts of all statements that were run, in order."""

    def lose(self, statement: str, *, after_commit: bool, following: str = "", for_good: bool = False) -> None:
        """Cut the connection that next runs a statement with this text in it, once.

        With `following` only in a transaction that ran another statement with that text before; with `for_good`
        the whole way is cut with it, until it is opened again.
        """
        self.doomed, self.after_commit = statement.encode(), after_commit
        self.following, self.for_good = following.encode(), for_good
        self.cut_now.clear()

    def hold(self, statement: str) -> None:
        """Let the connection that next runs a statement with this text wait for ever; `held` says that it does."""
        self.held_text = statement.encode()
        self.held.clear()

    def cut_running(self) -> None:
        """Cut the connection whose answer is to be lost, though Postgres still runs its statement."""
        for link in self._links:
            if link.doomed:
                self.note_cut()
                link.cut()

    def note_cut(self) -> None:
        """Count a cut; if it is for good, cut everything."""
        self.cuts += 1
        if self.for_good:
            self._shut()
        self.cut_now.set()

    def count(self, text: str) -> int:
        """Return how many statements with this text were run."""
        return sum(text.encode() in statement for statement in self.heard)

    async def open(self) -> None:
        """Listen, at first or again."""
        self._server = await asyncio.start_unix_server(self._connected, self._socket)

    async def close(self) -> None:
        """Be gone: end all connections and refuse new ones."""
        if self._server is not None:
            self._shut()
            await asyncio.gather(*(link.ended.wait() for link in list(self._links)))
            self._server = None

    def _shut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._socket.unlink(missing_ok=True)
            for link in self._links:
                link.cut()

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
        self._transaction = b""
        self.doomed = False
        self._over = asyncio.Event()
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
        self._over.set()
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
            await self._look_at(kind, body)
            if self.doomed and not self._owner.after_commit:
                self._owner.note_cut()
                return
            self._upstream.write(kind + length + body)
            await self._upstream.drain()

    async def _look_at(self, kind: bytes, body: bytes) -> None:
        """Learn the texts of prepared statements and notice the doomed one being run."""
        if kind == b"P":
            name, text, _ = body.split(b"\0", 2)
            self._statements[name] = text
            return
        running = body if kind == b"Q" else self._statements.get(body.split(b"\0", 2)[1], b"") if kind == b"B" else b""
        if not running:
            return
        owner = self._owner
        owner.heard.append(running)
        if owner.held_text is not None and owner.held_text in running:
            owner.held_text = None
            owner.held.set()
            await self._over.wait()
            raise ConnectionAbortedError
        if owner.doomed is not None and owner.doomed in running and owner.following in self._transaction:
            owner.doomed = None
            self.doomed = True
        self._transaction = b"" if running.startswith(b"BEGIN") else self._transaction + running

    async def _pass_back(self, reader: asyncio.StreamReader) -> None:
        """Postgres to client, up to the answer that is to be lost."""
        try:
            while True:
                kind = await reader.readexactly(1)
                length = await reader.readexactly(LENGTH_BYTES)
                body = await reader.readexactly(int.from_bytes(length) - LENGTH_BYTES)
                if kind == BACKEND_KEY and self._owner.hides_pids:
                    body = POOLERS_PID.to_bytes(PID_BYTES) + body[PID_BYTES:]
                if not self.doomed:
                    self._writer.write(kind + length + body)
                    await self._writer.drain()
                elif kind == READY:
                    self._owner.note_cut()
                    break
        except (asyncio.IncompleteReadError, OSError):
            pass  # as in `run`
        if self._owner.lingers:
            self._owner.lingering.set()
        else:
            self.cut()


@asynccontextmanager
async def lossy_postgres(url: str, directory: Path) -> AsyncIterator[LossyPostgres]:
    """Yield a way to the database `url` that works until it is told otherwise."""
    proxy = LossyPostgres(url, directory)
    await proxy.open()
    try:
        yield proxy
    finally:
        await proxy.close()
