"""A server that does what a test says: the other end of the workers' stream."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

import grpc.aio

from orqestra.v1 import worker_pb2 as pb
from orqestra.v1.worker_pb2_grpc import WorkerServiceServicer, add_WorkerServiceServicer_to_server

PATIENCE_SECONDS = 10.0
LEASE_MS = 15_000


class Session:
    """One stream, seen from the server. Beats are answered by themselves while `answers_beats`."""

    def __init__(self, context: Any) -> None:
        self.answers_beats = True
        self.slots: list[int] = []
        self.over = asyncio.Event()
        self.peer: str = context.peer()
        self._context = context
        self._messages: list[pb.WorkerMessage] = []
        self._arrived = asyncio.Condition()
        self._ending: asyncio.Future[grpc.StatusCode | None] = asyncio.get_running_loop().create_future()
        self._assigns = 0
        self.results: dict[int, pb.Result] = {}
        self._writing = asyncio.Lock()

    async def serve(self) -> None:
        reader = asyncio.create_task(self._read())
        ends: set[asyncio.Future[Any]] = {reader, self._ending}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            self.over.set()
        if self._ending.done() and (code := self._ending.result()) is not None:
            await self._context.abort(code, "as the test says")

    async def receive(self, kind: str, matches: Callable[[Any], bool] = lambda _: True) -> Any:
        """Return the first message of this kind that matches and was not taken; others stay."""

        def found() -> pb.WorkerMessage | None:
            for message in self._messages:
                if message.WhichOneof("message") == kind and matches(getattr(message, kind)):
                    return message
            return None

        async with asyncio.timeout(PATIENCE_SECONDS), self._arrived:
            await self._arrived.wait_for(lambda: found() is not None)
            message = found()
            assert message is not None
            self._messages.remove(message)
            return getattr(message, kind)

    def waiting(self, kind: str) -> int:
        """How many messages of a kind have arrived and were not taken."""
        return sum(message.WhichOneof("message") == kind for message in self._messages)

    async def send(self, later: bytes = b"", **message: Any) -> None:
        """Send a message, and beside it fields of a later version."""
        whole = pb.ServerMessage(**message)
        whole.MergeFromString(later)
        async with self._writing:
            await self._context.write(whole)

    async def welcome(self, **welcome: Any) -> pb.Hello:
        """Answer Hello, and return it."""
        hello = await self.receive("hello")
        usual: dict[str, Any] = {"session_id": 7, "lease_ms": LEASE_MS, "server": "peer", "protocol": 1}
        await self.send(welcome=pb.Welcome(**usual | welcome))
        assert isinstance(hello, pb.Hello)
        return hello

    async def assign(self, *jobs: pb.Assignment) -> int:
        """Send jobs; return the number of the message."""
        self._assigns += 1
        await self.send(assign=pb.Assign(number=self._assigns, jobs=jobs))
        return self._assigns

    async def result(self, job_id: int) -> pb.Result:
        """Return a job's result; it and all that came before are acknowledged."""
        while job_id not in self.results:
            results = (await self.receive("results")).results
            self.results |= {each.attempt.job_id: each for each in results}
            await self.acknowledge(*(each.attempt for each in results))
        return self.results[job_id]

    async def acknowledge(self, *attempts: pb.AttemptRef) -> None:
        verdict = pb.ResultAcks.VERDICT_ACCEPTED
        acks = [pb.ResultAcks.Ack(attempt=attempt, verdict=verdict) for attempt in attempts]
        await self.send(result_acks=pb.ResultAcks(acks=acks))

    def end(self, code: grpc.StatusCode | None = None) -> None:
        """End the stream, in good order or with a status."""
        if not self._ending.done():
            self._ending.set_result(code)

    async def _read(self) -> None:
        while (message := await self._context.read()) is not grpc.aio.EOF:
            if message.WhichOneof("message") == "beat":
                self.slots.append(message.beat.slots)
                if self.answers_beats:
                    await self.send(beat_ack=pb.BeatAck(seq=message.beat.seq))
            async with self._arrived:
                self._messages.append(message)
                self._arrived.notify_all()


class LogLane:
    """One stream of Logs, seen from the server."""

    def __init__(self, context: Any) -> None:
        self.peer: str = context.peer()
        self.ending = asyncio.Event()
        self.over = asyncio.Event()
        self._context = context
        self._messages: asyncio.Queue[pb.LogsUp | None] = asyncio.Queue()

    async def serve(self) -> None:
        reader = asyncio.create_task(self._read())
        ending = asyncio.create_task(self.ending.wait())
        try:
            await asyncio.wait([reader, ending], return_when=asyncio.FIRST_COMPLETED)
        finally:
            reader.cancel()
            ending.cancel()
            await asyncio.gather(reader, ending, return_exceptions=True)
            self.over.set()

    async def receive(self) -> pb.LogsUp | None:
        """Return the next message, None for the end of the worker's side."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self._messages.get()

    async def output(self) -> tuple[int, bytes]:
        """Return place and bytes of the next piece."""
        message = await self.receive()
        assert message is not None
        assert message.HasField("output")
        return message.output.offset, message.output.data

    async def none(self, seconds: float) -> None:
        """Return if nothing comes for so long."""
        try:
            async with asyncio.timeout(seconds):
                message = await self._messages.get()
        except TimeoutError:
            return
        raise AssertionError(f"an unexpected {message}")

    async def send(self, **message: Any) -> None:
        await self._context.write(pb.LogsDown(**message))

    async def _read(self) -> None:
        while (message := await self._context.read()) is not grpc.aio.EOF:
            self._messages.put_nowait(message)
        self._messages.put_nowait(None)


class Peer(WorkerServiceServicer):
    """The service; each stream becomes a session."""

    def __init__(self) -> None:
        self.address = ""
        self.lanes: asyncio.Queue[LogLane] = asyncio.Queue()
        self._sessions: asyncio.Queue[Session] = asyncio.Queue()
        self._all: list[Session] = []

    async def Work(self, _requests: Any, context: Any) -> None:
        session = Session(context)
        self._all.append(session)
        self._sessions.put_nowait(session)
        await session.serve()

    async def Logs(self, _requests: Any, context: Any) -> None:
        lane = LogLane(context)
        self.lanes.put_nowait(lane)
        await lane.serve()

    async def lane(self) -> LogLane:
        """Return the next lane that a worker opens."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.lanes.get()

    async def session(self) -> Session:
        """Return the next stream that a worker opens."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self._sessions.get()

    async def welcomed(self, **welcome: Any) -> Session:
        """Return the next stream once its worker has been welcomed."""
        session = await self.session()
        await session.welcome(**welcome)
        return session

    @classmethod
    @asynccontextmanager
    async def serving(cls, address: str = "127.0.0.1:0") -> AsyncIterator[Self]:
        peer = cls()
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        add_WorkerServiceServicer_to_server(peer, server)
        peer.address = f"127.0.0.1:{server.add_insecure_port(address)}"
        await server.start()
        try:
            yield peer
        finally:
            for session in peer._all:
                session.end()
            await server.stop(None)


def shell(job_id: int, command: str, **fields: Any) -> pb.Assignment:
    """Return an assignment that runs a command."""
    return assignment(job_id, payload=json.dumps({"command": command}).encode(), **fields)


def assignment(job_id: int, **fields: Any) -> pb.Assignment:
    """Return an assignment; the fence and the token are made up from the job."""
    attempt = pb.AttemptRef(job_id=job_id, fence=fields.pop("fence", 1), token=job_id * 1000)
    defaults: dict[str, Any] = {"type": "shell", "attempt_number": 1, "grace_ms": 5000}
    return pb.Assignment(attempt=attempt, **defaults | fields)
