"""What can go wrong between processes, with time, and with those who come back from the dead."""

import asyncio
import time
from functools import partial
from typing import Final

from orqestra.client import Client
from orqestra.client.patience import Patience
from tests.chaos.cell import Act, Cell, Stage
from tests.chaos.kill_cells import MAYBE_TWICE, ONE, TWICE, TWO
from tests.chaos.nodes import Shape, Worker
from tests.chaos.proxy import Toxics, Way

DEFAULT_LEASE: Final = Shape(servers=1, workers=2, lease_seconds=15)
BOTH: Final = frozenset({Way.UP, Way.DOWN})
FLAPS: Final = 8
FLAP_SECONDS: Final = (0.3, 1.2)
LOST_REPLIES: Final = 6
RESTARTS: Final = 2
HOUR_SECONDS: Final = 3600.0
SLOW_BYTES_PER_SECOND: Final = 2000.0
WAKE_SECONDS: Final = 1.5
FLOOD_CALLERS: Final = 64
FLOOD_SECONDS: Final = 4.0
FLOOD_SHARE: Final = 1.5
STOP_BOUND_SECONDS: Final = 5.0
# A worker that is lost: its lease, then a look each second at what lapsed and at what ran there.
LOST_SECONDS: Final = ONE.lease_seconds + 2.0
# Clients whose server stands still need a call's timeout to learn it.
CALL_SECONDS: Final = 5.0
STALE: Final = "VERDICT_STALE"


async def half_open(stage: Stage, leases: float) -> None:
    """The route between a worker and its server is lost, both ends believing in it."""
    worker, job_id = await _held_job(stage)
    if leases > 1:
        stage.starts[job_id] = TWICE
    worker.link.set(Toxics(holes=set(BOTH)))
    stage.fault()
    if leases > 1:
        await stage.started(job_id, 2)
        _note_rerun(stage)
    else:
        await asyncio.sleep(leases * stage.cluster.shape.lease_seconds)
    worker.link.heal()
    stage.healed()
    stage.release()
    await stage.recovered()


async def one_way(stage: Stage, way: Way) -> None:
    """What one side says arrives, what the other says does not."""
    worker, job_id = await _held_job(stage)
    stage.starts[job_id] = MAYBE_TWICE
    worker.link.set(Toxics(holes={way}))
    stage.fault()
    await asyncio.sleep(2 * stage.cluster.shape.lease_seconds)
    worker.link.heal()
    stage.healed()
    stage.release()
    await stage.recovered()


async def flapping(stage: Stage) -> None:
    """The connections of every worker are reset again and again."""
    await _held_job(stage)
    for _ in range(FLAPS):
        for worker in stage.cluster.workers:
            worker.link.reset()
        stage.fault()
        await asyncio.sleep(stage.chance.uniform(*FLAP_SECONDS))
    stage.release()
    await stage.recovered()


async def lost_replies(stage: Stage, *, of_workers: bool) -> None:
    """What answers the k-th thing that is said on a connection never comes, and the connection is reset."""
    for passes in range(LOST_REPLIES):
        worker = stage.chance.choice(stage.cluster.workers)
        proxies = worker.link.proxies if of_workers else (stage.cluster.client_link,)
        async with asyncio.timeout(CALL_SECONDS):
            await proxies[0].lose_reply(passes).wait()
        stage.fault()
    await stage.recovered()


async def sliced(stage: Stage) -> None:
    """What workers and servers say arrives in small pieces and late."""
    for worker in stage.cluster.workers:
        worker.link.set(Toxics(slice_bytes=7, latency_seconds=0.01))
    stage.fault()
    await stage.recovered()


async def slow_reader(stage: Stage) -> None:
    """One worker hardly reads; the others do not wait for it."""
    stage.cluster.workers[0].link.set(Toxics(bytes_per_second=SLOW_BYTES_PER_SECOND))
    stage.fault()
    await stage.more_ended(100)
    stage.cluster.workers[0].link.heal()
    stage.healed()
    await stage.recovered()


async def stopped_worker(stage: Stage, *, with_commands: bool, seconds: float = 0.0) -> None:
    """A worker stands still for longer than its lease, and for `seconds`, and then goes on as if nothing had been."""
    worker, job_id = await _held_job(stage)
    stage.starts[job_id] = TWICE
    worker.pause(tree=with_commands)
    stage.fault()
    await stage.started(job_id, 2)
    _note_rerun(stage)
    await asyncio.sleep(max(0.0, seconds - (time.time() - stage.fault_at)))
    # The first attempt ends before its worker has heard that it is no longer its own.
    stage.holds.release(1)
    worker.resume()
    stage.healed()
    if not with_commands:
        await stage.until(lambda: STALE in worker.log())
    stage.release()
    await stage.recovered()


async def lost_host(stage: Stage) -> None:
    """A host is gone for good."""
    worker, job_id = await _held_job(stage)
    stage.starts[job_id] = TWICE
    await worker.kill_tree()
    stage.fault()
    await stage.started(job_id, 2)
    _note_rerun(stage)
    stage.release()
    await stage.recovered()


async def stopped_server(stage: Stage) -> None:
    """One of two servers stands still for longer than a lease: the other takes its workers over."""
    worker, _ = await _held_job(stage)
    server = await stage.server_of(worker)
    server.pause()
    stage.fault()
    await asyncio.sleep(stage.cluster.shape.lease_seconds + 2)
    server.resume()
    stage.healed()
    stage.release()
    await stage.recovered()


async def nothing(stage: Stage) -> None:
    """Nothing at all happens: what holds then has to be seen as well."""
    await _held_job(stage)
    stage.fault()
    await stage.more_ended(100)
    stage.release()
    await stage.recovered()


async def lost_wakes(stage: Stage) -> None:
    """Servers do not hear of each other: what is submitted at one is found by the other within a second."""
    for _ in range(4):
        async with stage.cluster.redis_client() as redis:
            await redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        stage.fault()
        job_id = await stage.clients.submit()
        asked_at = time.time()
        await stage.ended(job_id)
        took = time.time() - asked_at
        stage.figures["latency_s"] = max(round(took, 2), stage.figures.get("latency_s", 0.0))
        stage.demand(took <= WAKE_SECONDS, f"job {job_id} took {took:.2f} s")
    await stage.recovered()


async def rolling_servers(stage: Stage) -> None:
    """Servers are restarted one after the other, as an upgrade does it, under load."""
    await _held_job(stage)
    for _ in range(RESTARTS):
        for server in stage.cluster.servers:
            stage.fault()
            began = time.time()
            code = await server.stop()
            took = time.time() - began
            stage.figures["stop_s"] = max(round(took, 2), stage.figures.get("stop_s", 0.0))
            stage.demand(code == 0, f"{server.name} ended with exit code {code}")
            stage.demand(took <= STOP_BOUND_SECONDS, f"{server.name} took {took:.1f} s to stop")
            server.start()
            await stage.cluster.whole()
            stage.healed()
            await stage.more_ended(30)
    stage.release()
    await stage.recovered()
    failed = [each for each in stage.clients.operations if each.outcome != "ok"]
    stage.demand(not failed, f"{len(failed)} submits failed in spite of a client that tries again")


async def rolling_workers(stage: Stage) -> None:
    """Workers are restarted one after the other, under load: they drain."""
    for worker in stage.cluster.workers:
        stage.fault()
        code = await worker.stop(seconds=10)
        stage.demand(code == 0, f"{worker.name} ended with exit code {code}")
        worker.start()
        await stage.cluster.whole()
        stage.healed()
        await stage.more_ended(30)
    await stage.recovered()


async def flood(stage: Stage) -> None:
    """Clients submit as fast as they are let: everything that is acknowledged is run, and memory stays flat."""
    before = stage.cluster.servers[0].resident_mb()
    until = time.monotonic() + FLOOD_SECONDS
    stage.fault()

    async def caller() -> None:
        address = f"127.0.0.1:{stage.cluster.client_link.port}"
        async with Client(address, patience=Patience(total_seconds=10.0, call_seconds=CALL_SECONDS)) as client:
            while time.monotonic() < until:
                await stage.clients.submit_noops(500, client=client)

    await asyncio.gather(*(caller() for _ in range(FLOOD_CALLERS // 8)))
    stage.healed()
    grown = stage.cluster.servers[0].resident_mb() - before
    stage.figures["jobs_per_s"] = round(len(stage.clients.noops) / FLOOD_SECONDS)
    stage.figures["grown_mb"] = round(grown)
    # Not until all is still: the background goes on, and each of its jobs leaves something unfinished for a moment.
    await stage.ended_up_to(await stage.last_job(), seconds=60)


def network_cells() -> list[Cell]:
    """Return the cells of the table."""
    skewed = {name: HOUR_SECONDS for name in ("server-2", "worker-1")} | {"worker-2": -HOUR_SECONDS}
    return [
        _cell("half-open, half a lease", "link", partial(half_open, leases=0.5), 2.0),
        _cell("half-open, four leases", "link", partial(half_open, leases=4), LOST_SECONDS, subset=True),
        _cell("worker unheard", "link", partial(one_way, way=Way.UP), LOST_SECONDS),
        _cell("server unheard", "link", partial(one_way, way=Way.DOWN), LOST_SECONDS),
        _cell("connections reset, again and again", "link", flapping, 3.0, subset=True),
        _cell("k-th reply lost", "link", partial(lost_replies, of_workers=True), 3.0),
        _cell("k-th reply lost", "link of clients", partial(lost_replies, of_workers=False), 3.0, subset=True),
        _cell("sliced and late", "link", sliced, 3.0),
        _cell("slow reader", "worker", slow_reader, LOST_SECONDS, starts=MAYBE_TWICE),
        _cell("SIGSTOP, SIGCONT", "worker", partial(stopped_worker, with_commands=False), LOST_SECONDS, subset=True),
        _cell("SIGSTOP, SIGCONT", "worker and commands", partial(stopped_worker, with_commands=True), LOST_SECONDS),
        _cell(
            "SIGSTOP for a minute, lease 15 s",
            "worker",
            partial(stopped_worker, with_commands=False, seconds=60.0),
            LOST_SECONDS,
            shape=DEFAULT_LEASE,
        ),
        _cell("host lost, lease 15 s", "worker", lost_host, 17.0, shape=DEFAULT_LEASE),
        _cell("SIGSTOP, SIGCONT", "server", stopped_server, LOST_SECONDS + CALL_SECONDS, shape=TWO),
        _cell("no fault", "two servers", nothing, 3.0, shape=TWO),
        _cell("subscriptions lost", "two servers", lost_wakes, 3.0, shape=TWO),
        _cell("rolling restart", "two servers", rolling_servers, 3.0, shape=TWO, subset=True),
        _cell("rolling restart", "workers", rolling_workers, 3.0),
        _cell("an hour off", "clocks", nothing, 3.0, shape=Shape(servers=2, workers=2, clock_offsets=skewed)),
        _cell("flood of submits", "server", flood, 30.0),
    ]


def _cell(
    point: str,
    victim: str,
    act: Act,
    bound_seconds: float,
    *,
    shape: Shape = ONE,
    starts: tuple[int, int] = (1, 1),
    subset: bool = False,
) -> Cell:
    # Jobs of a worker that is taken for lost run again; which ones those are is the history's to say.
    if bound_seconds >= LOST_SECONDS:
        starts = MAYBE_TWICE
    return Cell(
        point=point, victim=victim, act=act, bound_seconds=bound_seconds, shape=shape, starts=starts, subset=subset
    )


def _note_rerun(stage: Stage) -> None:
    """Note how long it took until a job of a lost worker ran again, and whether that was soon enough."""
    took = time.time() - stage.fault_at
    bound = stage.cluster.shape.lease_seconds + 2.0
    stage.figures["again_elsewhere_s"] = round(took, 2)
    stage.demand(took <= bound, f"the job ran again after {took:.2f} s, the bound is {bound:g} s")


async def _held_job(stage: Stage) -> tuple[Worker, int]:
    """Have a command run until `Stage.release`; return its worker and its id."""
    job_id = await stage.held_job()
    return await stage.worker_of(job_id), job_id
