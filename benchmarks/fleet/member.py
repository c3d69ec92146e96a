"""One simulated worker: says Hello, beats, accepts what it is given and reports at once that it went well."""

import asyncio
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import uuid4

import grpc

from orqestra.v1.worker_pb2 import (
    Assign,
    AssignAck,
    Assignment,
    Beat,
    Held,
    Hello,
    Result,
    Results,
    ServerMessage,
    Welcome,
    WorkerMessage,
)
from orqestra.worker.connection import OPTIONS

WORK: Final = "/orqestra.v1.WorkerService/Work"
BEATS_PER_LEASE: Final = 4
BROKEN: Final = (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError)


@dataclass(kw_only=True)
class Tally:
    """What all members of a process have seen since it was last asked for."""

    latencies_s: list[float] = field(default_factory=list)
    """From the moment that a payload tells to the Assign, where a payload tells one."""
    jobs: int = 0
    messages: int = 0
    """Assigns; each is answered by two messages."""


class Member:
    """One worker on one stream."""

    def __init__(self, address: str, slots: int, tally: Tally) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=OPTIONS)
        work = self._channel.stream_stream(
            WORK,
            request_serializer=WorkerMessage.SerializeToString,
            response_deserializer=ServerMessage.FromString,
        )
        self._call: Any = work()
        self._slots = slots
        self._tally = tally
        self._writing = asyncio.Lock()

    async def connect(self) -> float:
        """Say Hello; return every how many seconds it has to beat."""
        hello = Hello(
            protocol=1,
            worker_id=str(uuid4()),
            incarnation=str(uuid4()),
            number=1,
            name="fleet",
            slots=self._slots,
            queues=["default"],
        )
        await self._call.write(WorkerMessage(hello=hello))
        welcome: Welcome = (await self._call.read()).welcome
        return welcome.lease_ms / 1000 / BEATS_PER_LEASE

    async def work(self) -> None:
        """Take what comes until the stream ends."""
        while (message := await self._call.read()) is not grpc.aio.EOF:
            match message.WhichOneof("message"):
                case "assign":
                    await self._run(message.assign)
                case "list_held":
                    await self._send(WorkerMessage(held=Held(seq=message.list_held.seq)))

    async def beat(self, every_seconds: float) -> None:
        """Beat for ever, or until the stream ends."""
        seq = 0
        await asyncio.sleep(random.uniform(0, every_seconds))
        while True:
            seq += 1
            await self._send(WorkerMessage(beat=Beat(seq=seq, slots=self._slots)))
            await asyncio.sleep(every_seconds)

    async def _run(self, assign: Assign) -> None:
        self._note(assign.jobs)
        await self._send(WorkerMessage(assign_ack=AssignAck(up_to=assign.number)))
        results = [Result(attempt=job.attempt, ok=True, reason="exited", exit_code=0) for job in assign.jobs]
        await self._send(WorkerMessage(results=Results(results=results)))

    def _note(self, jobs: Iterable[Assignment]) -> None:
        now = time.monotonic_ns()
        self._tally.messages += 1
        for job in jobs:
            self._tally.jobs += 1
            if job.payload.isdigit():
                self._tally.latencies_s.append((now - int(job.payload)) / 1e9)

    async def _send(self, message: WorkerMessage) -> None:
        # gRPC takes one message at a time.
        async with self._writing:
            await self._call.write(message)


async def live(member: Member, beat_seconds: float) -> None:
    """Be a connected worker until the stream ends."""
    beating = asyncio.create_task(member.beat(beat_seconds))
    try:
        await member.work()
    except BROKEN:
        return
    finally:
        beating.cancel()
        await asyncio.wait([beating])
        if not beating.cancelled():
            beating.exception()
