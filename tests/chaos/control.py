"""The other end of `launch`: halts processes at failpoints, learns that they are there, lets them go on."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from orqestra.failpoint import Point

ANSWER_SECONDS = 10.0
HIT_SECONDS = 20.0


class Puppet:
    """One process on its strings."""

    def __init__(self, name: str, pid: int, writer: asyncio.StreamWriter) -> None:
        self.name = name
        self.pid = pid
        self.gone = asyncio.Event()
        self._writer = writer
        self._answers: asyncio.Queue[str] = asyncio.Queue()
        self._hits: asyncio.Queue[Point] = asyncio.Queue()

    async def arm(self, point: Point, passes: int = 0) -> None:
        """Have it halt at `point`, after it has gone past it `passes` times."""
        await self._ask(f"arm {point} {passes}", f"armed {point}")

    async def disarm(self, point: Point) -> None:
        """Let it pass `point` from now on."""
        await self._ask(f"disarm {point}", f"disarmed {point}")

    async def hit(self) -> Point:
        """Return the next point at which it halts."""
        return await self._hits.get()

    def go(self) -> None:
        """Let it go on from where it halts; one that has ended does not mind."""
        if not self._writer.is_closing():
            self._writer.write(b"go\n")

    async def _ask(self, line: str, answer: str) -> None:
        if self.gone.is_set():
            return
        self._writer.write(f"{line}\n".encode())
        gone = asyncio.create_task(self.gone.wait())
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                while not self.gone.is_set():
                    told = asyncio.create_task(self._answers.get())
                    await asyncio.wait([told, gone], return_when=asyncio.FIRST_COMPLETED)
                    if told.done() and told.result() == answer:
                        return
                    told.cancel()
        finally:
            gone.cancel()

    async def listen(self, reader: asyncio.StreamReader) -> None:
        """Take what it says until its end."""
        with suppress(ConnectionError):
            async for line in reader:
                word, _, point = line.decode().strip().partition(" ")
                if word == "hit":
                    self._hits.put_nowait(Point(point))
                else:
                    self._answers.put_nowait(line.decode().strip())
        self.gone.set()
        self._writer.close()


class Control:
    """The socket that the processes of a cluster connect to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._server: asyncio.Server | None = None
        self._puppets: dict[str, Puppet] = {}
        self._news = asyncio.Condition()

    async def open(self) -> None:
        """Listen."""
        self._server = await asyncio.start_unix_server(self._connected, self.path)

    async def close(self) -> None:
        """Listen no more; every process goes on."""
        if self._server is not None:
            self._server.close()
        for puppet in self._puppets.values():
            puppet._writer.close()

    async def puppet(self, name: str, pid: int) -> Puppet:
        """Return the process `name` of that pid, once it has said hello."""
        async with asyncio.timeout(ANSWER_SECONDS), self._news:
            await self._news.wait_for(lambda: name in self._puppets and self._puppets[name].pid == pid)
            return self._puppets[name]

    async def living(self, name: str) -> Puppet:
        """Return the process `name`, whichever it is now."""
        async with asyncio.timeout(ANSWER_SECONDS), self._news:
            await self._news.wait_for(lambda: name in self._puppets and not self._puppets[name].gone.is_set())
            return self._puppets[name]

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, name, pid = (await reader.readline()).decode().split()
        puppet = Puppet(name, int(pid), writer)
        async with self._news:
            self._puppets[name] = puppet
            self._news.notify_all()
        await puppet.listen(reader)


async def halt(puppets: Iterable[Puppet], point: Point, passes: int = 0) -> None:
    """Have whichever of them comes to `point` first halt there."""
    for puppet in puppets:
        await puppet.arm(point, passes)


async def first_hit(puppets: Iterable[Puppet], point: Point, seconds: float = HIT_SECONDS) -> Puppet:
    """Return the first of them that halts at `point`, and let all others pass.

    Raises TimeoutError if none gets there: what the test is about did not happen.
    """
    waiting = {asyncio.create_task(puppet.hit()): puppet for puppet in puppets}
    done, pending = await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    if not done:
        for task in pending:
            task.cancel()
        raise TimeoutError(f"nobody reached {point} within {seconds:g} s")
    first, *late = done
    for task in late:
        waiting[task].go()
    for task in pending:
        await waiting[task].disarm(point)
        if task.done():
            waiting[task].go()
        task.cancel()
    return waiting[first]
