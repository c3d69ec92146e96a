"""Many members in one process, `python -m benchmarks.fleet.crowd ADDRESS STREAMS SLOTS`, and the handle to some.

It prints a line of JSON once all are connected, and one for each line that it reads: what was seen since the
last. At the end of its input it ends, and its streams with it.
"""

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from benchmarks.fleet.member import Member, Tally, live

# Of each process: opening thousands of connections is not what is measured.
AT_ONCE: Final = 16
CONNECT_SECONDS: Final = 120.0
ANSWER_SECONDS: Final = 30.0
END_SECONDS: Final = 20.0
LINE_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a crowd has seen since it was last asked; `open` streams are there now."""

    latencies_s: Sequence[float]
    jobs: int
    messages: int
    open: int


class Crowd:
    """Some processes with so many streams together, each with so many slots."""

    def __init__(self, address: str, streams: int, slots: int, processes: int) -> None:
        self._address = address
        self._slots = slots
        shares = [streams // processes + (number < streams % processes) for number in range(processes)]
        self._shares = [share for share in shares if share]
        self._processes: list[asyncio.subprocess.Process] = []

    async def __aenter__(self) -> Self:
        for share in self._shares:
            self._processes.append(
                await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "benchmarks.fleet.crowd", self._address, str(share), str(self._slots)),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    limit=LINE_BYTES,
                )
            )
        await asyncio.gather(*(_line(process, CONNECT_SECONDS) for process in self._processes))
        return self

    async def __aexit__(self, *error: object) -> None:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        async with asyncio.timeout(END_SECONDS):
            await asyncio.gather(*(process.wait() for process in self._processes))

    async def seen(self) -> Seen:
        """Return what was seen since the last call."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(b"\n")
        answers = await asyncio.gather(*(_line(process, ANSWER_SECONDS) for process in self._processes))
        return Seen(
            latencies_s=[each for answer in answers for each in answer["latencies_s"]],
            **{name: sum(answer[name] for answer in answers) for name in ("jobs", "messages", "open")},
        )


async def _line(process: asyncio.subprocess.Process, seconds: float) -> dict[str, Any]:
    assert process.stdout is not None
    async with asyncio.timeout(seconds):
        answer: dict[str, Any] = json.loads(await process.stdout.readline())
    return answer


async def main(address: str, streams: int, slots: int) -> None:
    """Connect, then answer until the end of the input."""
    tally = Tally()
    turns = asyncio.Semaphore(AT_ONCE)

    async def connect() -> "asyncio.Task[None]":
        async with turns:
            member = Member(address, slots, tally)
            return asyncio.create_task(live(member, await member.connect()))

    members = await asyncio.gather(*(connect() for _ in range(streams)))
    print(json.dumps({"connected": len(members)}), flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        answer = {**asdict(tally), "open": sum(not member.done() for member in members)}
        tally.latencies_s, tally.jobs, tally.messages = [], 0, 0
        print(json.dumps(answer), flush=True)
    # Thousands of goodbyes would take long, and nobody waits for them: a worker that is killed is none the less gone.
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
