"""Thousands of workers of which each is hardly there: `python -m tests.chaos.crowd ADDRESS COUNT`.

Each has a connection of its own and says Hello, then beats, and comes back as a worker does (docs/protocol.md).
It serves a queue that nobody submits to, so that nothing is ever assigned to it.
"""

import asyncio
import random
import sys
from typing import Any, Final
from uuid import uuid4

import grpc

from orqestra.v1.worker_pb2 import Beat, Held, Hello, ServerMessage, WorkerMessage

NAME: Final = "crowd"
WORK: Final = "/orqestra.v1.WorkerService/Work"
WELCOME_SECONDS: Final = 5.0
PAUSES_SECONDS: Final = (0.25, 0.5, 1.0, 1.5)
# So many begin in a second at first: it is not the start that is to be measured.
BEGIN_PER_SECOND: Final = 250


class Ghost:
    """One worker, stream after stream."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._number = 0
        self._about: dict[str, Any] = {
            "protocol": 1,
            "worker_id": str(uuid4()),
            "incarnation": str(uuid4()),
            "name": NAME,
            "slots": 1,
            "queues": [NAME],
        }

    async def haunt(self) -> None:
        """Be there for ever."""
        failures = 0
        while True:
            async with grpc.aio.insecure_channel(
                self._address, options=(("grpc.use_local_subchannel_pool", 1),)
            ) as channel:
                failures = 1 if await self._stream(channel) else failures + 1
            await asyncio.sleep(random.uniform(0, PAUSES_SECONDS[min(failures, len(PAUSES_SECONDS)) - 1]))

    async def _stream(self, channel: grpc.aio.Channel) -> bool:
        """Be there for one stream; return whether it was welcome."""
        self._number += 1
        call: Any = channel.stream_stream(
            WORK,
            request_serializer=WorkerMessage.SerializeToString,
            response_deserializer=ServerMessage.FromString,
        )()
        welcomed = False
        beating: asyncio.Task[None] | None = None
        try:
            await call.write(WorkerMessage(hello=Hello(number=self._number, **self._about)))
            welcome = await asyncio.wait_for(call.read(), WELCOME_SECONDS)
            if welcome is grpc.aio.EOF or not welcome.HasField("welcome"):
                return False
            welcomed = True
            beating = asyncio.create_task(_beat(call, welcome.welcome.lease_ms / 4000))
            await _listen(call)
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError, TimeoutError):
            pass  # whatever it was, the next stream follows
        finally:
            if beating is not None:
                beating.cancel()
            call.cancel()
        return welcomed


async def _beat(call: Any, every_seconds: float) -> None:
    sequence = 0
    await asyncio.sleep(random.uniform(0, every_seconds))
    while True:
        sequence += 1
        try:
            await call.write(WorkerMessage(beat=Beat(seq=sequence, slots=1)))
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
            return
        await asyncio.sleep(every_seconds)


async def _listen(call: Any) -> None:
    while (message := await call.read()) is not grpc.aio.EOF:
        if message.HasField("list_held"):
            await call.write(WorkerMessage(held=Held(seq=message.list_held.seq)))


async def main(address: str, count: int) -> None:
    """Have so many there until the end of this process."""
    ghosts = []
    for _ in range(count):
        ghosts.append(asyncio.create_task(Ghost(address).haunt()))
        await asyncio.sleep(1 / BEGIN_PER_SECOND)
    await asyncio.gather(*ghosts)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
