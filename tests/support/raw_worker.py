"""A worker that speaks worker.proto exactly as a test tells it, well or badly.

By itself it only acknowledges assignments, and not even that if it is told so. Nothing that gRPC works
for is ever cancelled but the call as a whole.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import grpc

from orqestra.v1.jobs_pb2 import Stream
from orqestra.v1.worker_pb2 import (
    Assign,
    AssignAck,
    Assignment,
    AssignNack,
    AttemptRef,
    Beat,
    HeldAttempt,
    Hello,
    Result,
    ResultAcks,
    Results,
    ServerMessage,
    StoreOutput,
    Welcome,
    WorkerMessage,
)

WAIT_SECONDS = 10.0
WORK = "/orqestra.v1.WorkerService/Work"
Verdict = ResultAcks.Verdict


class RawWorker:
    """One worker; `open` begins a stream, and the next `open` another one of the same worker."""

    def __init__(
        self,
        address: str,
        *,
        slots: int = 1,
        queues: Iterable[str] = ("default",),
        labels: Mapping[str, str] | None = None,
        name: str = "raw",
    ) -> None:
        self.about: dict[str, Any] = {
            "protocol": 1,
            "worker_id": str(uuid4()),
            "incarnation": str(uuid4()),
            "name": name,
            "slots": slots,
            "queues": list(queues),
            "labels": dict(labels or {}),
        }
        self.address = address
        self.streams: list[RawStream] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream in self.streams:
            await stream.break_off()

    async def open(self, number: int | None = None, **changes: Any) -> "RawStream":
        """Open a stream and return it once it was welcomed."""
        stream = await self.dial()
        await stream.send(hello=self.hello(number, **changes))
        stream.welcome = await stream.next("welcome")
        return stream

    async def dial(self, *, acknowledge: bool = True) -> "RawStream":
        """Begin a stream without a word."""
        stream = RawStream(self.address, acknowledge=acknowledge)
        self.streams.append(stream)
        return stream

    def hello(self, number: int | None = None, **changes: Any) -> Hello:
        """Return a Hello, with the next number unless one is given."""
        return Hello(**{"number": len(self.streams) if number is None else number, **self.about, **changes})


class RawStream:
    """One stream. Every message of the server is kept until a test asks for its kind."""

    def __init__(self, address: str, *, acknowledge: bool = True) -> None:
        # A channel of its own: breaking it off is what a lost network does.
        self._channel = grpc.aio.insecure_channel(address, options=(("grpc.use_local_subchannel_pool", 1),))
        work = self._channel.stream_stream(
            WORK, request_serializer=_serialize, response_deserializer=ServerMessage.FromString
        )
        self._call: Any = work()
        self._inboxes: defaultdict[str, asyncio.Queue[Any]] = defaultdict(asyncio.Queue)
        self._writing = asyncio.Lock()
        self._over = asyncio.Event()
        self._beat = 0
        self.acknowledge = acknowledge
        self.order: list[str] = []
        """The kinds of the messages that came, in order."""
        self.welcome = Welcome()
        self._reader = asyncio.create_task(self._read(), name="raw worker")

    async def send(self, raw: bytes | None = None, **message: Any) -> None:
        """Send one message, or any bytes at all."""
        async with self._writing:
            await self._call.write(WorkerMessage(**message) if raw is None else raw)

    async def next(self, kind: str, seconds: float = WAIT_SECONDS) -> Any:
        """Return the next message of a kind; the end of the stream before that is an error of the test."""
        got = asyncio.create_task(self._inboxes[kind].get())
        over = asyncio.create_task(self._over.wait())
        await asyncio.wait([got, over], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        over.cancel()
        if got.done():
            return got.result()
        got.cancel()
        ended = (
            f"it ended: {await self._call.code()} {await self._call.details()}" if self._over.is_set() else "it waits"
        )
        raise AssertionError(f"no {kind} within {seconds:g} s, only {self.order}; {ended}")

    def has(self, kind: str) -> bool:
        """Whether a message of a kind has come and was not asked for yet."""
        return not self._inboxes[kind].empty()

    async def none(self, kind: str, seconds: float) -> None:
        """Return if no message of a kind comes for so long."""
        try:
            async with asyncio.timeout(seconds):
                message = await self._inboxes[kind].get()
        except TimeoutError:
            return
        raise AssertionError(f"an unexpected {kind}: {message}")

    async def assigned(self, count: int, seconds: float = WAIT_SECONDS) -> list[Assignment]:
        """Return the next `count` jobs; more in the same message is an error."""
        jobs: list[Assignment] = []
        while len(jobs) < count:
            assign: Assign = await self.next("assign", seconds)
            jobs += assign.jobs
        assert len(jobs) == count, f"{len(jobs)} jobs instead of {count}"
        return jobs

    async def finish(self, jobs: Iterable[Assignment], **result: Any) -> list["Verdict"]:
        """Report results, successes unless told otherwise, and return the verdicts in their order."""
        return await self.report([good(job.attempt, **result) for job in jobs])

    async def report(self, results: Iterable[Result]) -> list["Verdict"]:
        """Send results in one message and return the verdicts in their order."""
        results = list(results)
        await self.send(results=Results(results=results))
        return await self._verdicts([result.attempt for result in results])

    async def run(self, count: int) -> list[int]:
        """Run jobs until so many have come, as a fast worker; return their ids in the order they came."""
        ids: list[int] = []
        while len(ids) < count:
            jobs = (await self.next("assign")).jobs
            ids += [job.attempt.job_id for job in jobs]
            await self.send(results=Results(results=[good(job.attempt) for job in jobs]))
        return ids

    async def give_back(self, jobs: Iterable[Assignment], reason: str = "draining") -> list["Verdict"]:
        """Hand jobs back before anything of them ran, and return the verdicts in their order."""
        attempts = [job.attempt for job in jobs]
        await self.send(assign_nack=AssignNack(attempts=attempts, reason=reason))
        return await self._verdicts(attempts)

    async def beat(self, slots: int) -> int:
        """Beat and return the number of the beat."""
        self._beat += 1
        await self.send(beat=Beat(seq=self._beat, slots=slots))
        return self._beat

    async def store(self, attempt: AttemptRef, stream: Stream, offset: int, data: bytes) -> bool:
        """Store a piece of output and return whether it was kept."""
        piece = StoreOutput(attempt=attempt, stream=stream, offset=offset, data=data)
        await self.send(store_output=piece)
        return bool((await self.next("output_ack")).stored)

    async def end(self, seconds: float = WAIT_SECONDS) -> tuple[grpc.StatusCode, str]:
        """Wait until the server ends the stream; return the status and its message."""
        async with asyncio.timeout(seconds):
            await self._over.wait()
        return await self._call.code(), await self._call.details()

    async def hang_up(self) -> None:
        """End this side in good order and wait for the server's."""
        await self._call.done_writing()
        await self.end()

    async def break_off(self) -> None:
        """End the call at once."""
        self._call.cancel()
        await self._over.wait()
        await self._reader
        await self._channel.close()

    async def _verdicts(self, attempts: Sequence[AttemptRef]) -> list["Verdict"]:
        verdicts: defaultdict[tuple[int, int, int], list[Verdict]] = defaultdict(list)
        wanted = Counter(map(_name, attempts))
        # Counted for each: a server that outlived a Postgres that was put back may answer what an earlier stream asked.
        while any(len(verdicts[name]) < count for name, count in wanted.items()):
            acks: ResultAcks = await self.next("result_acks")
            for ack in acks.acks:
                verdicts[_name(ack.attempt)].append(ack.verdict)
        return [verdicts[_name(attempt)].pop(0) for attempt in attempts]

    async def _read(self) -> None:
        try:
            while (message := await self._call.read()) is not grpc.aio.EOF:
                kind = message.WhichOneof("message")
                self.order.append(kind)
                self._inboxes[kind].put_nowait(getattr(message, kind))
                if kind == "assign" and self.acknowledge:
                    await self.send(assign_ack=AssignAck(up_to=message.assign.number))
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.CancelledError, asyncio.InvalidStateError):
            pass  # `end` tells how
        finally:
            self._over.set()


def good(attempt: AttemptRef, **changes: Any) -> Result:
    """Return the result of a success, with changes."""
    return Result(**{"attempt": attempt, "ok": True, "reason": "exited", "exit_code": 0, **changes})


def held(job: Assignment, phase: "HeldAttempt.Phase" = HeldAttempt.PHASE_RUNNING) -> HeldAttempt:
    """Return what Hello says of a job that the worker has."""
    return HeldAttempt(attempt=job.attempt, phase=phase)


def _serialize(message: WorkerMessage | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()


def _name(attempt: AttemptRef) -> tuple[int, int, int]:
    return attempt.job_id, attempt.fence, attempt.token
