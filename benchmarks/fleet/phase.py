"""One number of streams on a fresh server: connect, stand still, a moderate stream of jobs, then all it can take."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import psutil

from benchmarks.fleet.crowd import Crowd
from benchmarks.fleet.figures import Cost, Figures
from orqestra.bench import audit, load, processes
from orqestra.bench.processes import Root
from orqestra.bench.progress import Unseen
from orqestra.bench.report import Latencies, Verdict
from orqestra.client import Client
from orqestra.embedded.stack import Stack
from orqestra.model.job import JobSpec

NOOP: Final = JobSpec(type="noop", tags=(load.TAG,))
SERVER_STOP_SECONDS: Final = 6.0
# So many jobs first, that nothing is measured which happens once.
WARM_JOBS: Final = 200


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much of everything. `slots` are of all streams together."""

    slots: int
    processes: int
    settle_seconds: float
    """Until what a connect has stirred up is over: renewals and answers to the first beats."""
    idle_seconds: float
    rate_per_s: int
    rate_seconds: float
    jobs: int


class Phase:
    """A server that runs, seen from outside."""

    def __init__(self, stack: Stack, client: Client, plan: Plan) -> None:
        self._stack = stack
        self._client = client
        self._plan = plan
        self._waits: list[load.Wait] = []

    async def measure(self, streams: int) -> Figures:
        """Return what so many streams cost and get."""
        slots = max(1, self._plan.slots // streams)
        rss_before = self._rss_bytes()
        began = time.monotonic()
        async with Crowd(self._stack.grpc_addr, streams, slots, self._plan.processes) as crowd:
            connect_seconds = time.monotonic() - began
            await asyncio.sleep(self._plan.settle_seconds)
            rss_connected = self._rss_bytes()
            idle = await self._cost(0, lambda: asyncio.sleep(self._plan.idle_seconds))
            await self._load(WARM_JOBS)
            await crowd.seen()
            trickle = self._plan.rate_per_s * round(self._plan.rate_seconds)
            latency_cost = await self._cost(trickle, lambda: self._trickle(trickle))
            latencies = Latencies.of((await crowd.seen()).latencies_s)
            loaded = await self._cost(self._plan.jobs, lambda: self._load(self._plan.jobs))
            seen = await crowd.seen()
            assert latencies is not None
            return Figures(
                streams=streams,
                slots=slots,
                connect_seconds=connect_seconds,
                rss_before_bytes=rss_before,
                rss_connected_bytes=rss_connected,
                rss_after_load_bytes=self._rss_bytes(),
                idle=idle,
                latencies=latencies,
                latency_cost=latency_cost,
                load=loaded,
                load_messages=seen.messages,
                open_at_end=seen.open,
                claimed_again=await self._claimed_again(),
            )

    async def _trickle(self, jobs: int) -> None:
        """Submit one job after the other at an even pace, each with the time of its submit, and wait for all ends."""
        began = time.monotonic()
        submits = []
        for number in range(jobs):
            await asyncio.sleep(began + number / self._plan.rate_per_s - time.monotonic())
            spec = replace(NOOP, payload=str(time.monotonic_ns()).encode())
            submits.append(asyncio.create_task(self._client.submit(spec)))
        await self._until_ended(sorted(await asyncio.gather(*submits)), began)

    async def _load(self, jobs: int) -> None:
        """Submit in batches from a few callers at once and wait for all ends."""
        began = time.monotonic()
        ids = await load.submit(self._client.submit_many, load.batches([NOOP], jobs))
        await self._until_ended(ids, began)

    async def _until_ended(self, ids: Sequence[int], began_at: float) -> None:
        heard_at = await load.wait(self._client, ids, Unseen())
        self._waits.append(load.Wait(ids=ids, began_at=began_at, heard_at=heard_at))

    async def _claimed_again(self) -> int:
        """Look at every job, each of which has to have completed; return how many did so at a later claim."""
        outcomes = await audit.look(self._stack.db_url, self._waits, Unseen())
        verdict = sum((outcome.verdict for outcome in outcomes), Verdict())
        assert verdict == Verdict(duplicated=verdict.duplicated), verdict
        return verdict.duplicated

    async def _cost(self, jobs: int, run: Callable[[], Awaitable[object]]) -> Cost:
        """Return what the processes took meanwhile."""
        before, began = processes.look(), time.monotonic()
        await run()
        seconds, after = time.monotonic() - began, processes.look()
        roots = [
            Root(name="server", pid=self._stack.server.child.pid),
            Root(name="postgres", pid=self._stack.postgres.child.pid),
            Root(name="redis", pid=self._stack.redis.child.pid),
        ]
        taken = {usage.name: usage.cpu_s for usage in processes.usages(roots, before, after)}
        return Cost(seconds=seconds, jobs=jobs, **{f"{root.name}_cpu_s": taken[root.name] for root in roots})

    def _rss_bytes(self) -> int:
        return int(psutil.Process(self._stack.server.child.pid).memory_info().rss)


async def measure(stack: Stack, streams: int, plan: Plan) -> Figures:
    """Measure so many streams on a server that is started anew, so that none finds what another has left."""
    await stack.server.stop(SERVER_STOP_SECONDS)
    await stack.start_server()
    async with Client(stack.grpc_addr) as client:
        return await Phase(stack, client, plan).measure(streams)
