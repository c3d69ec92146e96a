"""What hits the data itself: a disk that is full, a Postgres that has forgotten, and clients at cross purposes."""

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from typing import Final, Literal

import asyncpg

from orqestra.client import Client, JobSpec, new_key
from orqestra.client.patience import Patience
from orqestra.model import limits
from orqestra.model.errors import OrqestraError, StorageUnavailable
from orqestra.model.job import JobType
from tests.chaos.cell import Act, Cell, Stage
from tests.chaos.disk import fill
from tests.chaos.evidence import Operation
from tests.chaos.kill_cells import BOUNDS, TWO
from tests.chaos.nodes import Server, Shape
from tests.chaos.rewound import rewound

SMALL_DISK: Final = Shape(servers=1, workers=2, disk_mb=256)
FULL_SECONDS: Final = 2.0
REFUSED_SECONDS: Final = 15.0
# Each is refused or stored at once; only a client that does not insist gets to see the first refusal.
IMPATIENT: Final = Patience(total_seconds=2.0, call_seconds=2.0)
ROOM_BYTES: Final = 200_000
LOG_SWITCHES: Final = 200
CRASH_SECONDS: Final = 10.0
# Of one statement, of one transaction of several, and one by one.
KEYS: Final = (100, 2500)
ROUNDS: Final = 3
SINGLE_KEYS: Final = 60
# Thousands of jobs that do nothing, all at once, would only measure something else.
UNSERVED: Final = "unserved"
CONTRARY_BOUND_SECONDS: Final = 5.0


async def disk_full(stage: Stage, *, log_too: bool) -> None:
    """The disk of Postgres is full for a while, so full that it ends if `log_too`: clients are told."""
    await stage.held_job()
    cluster = stage.cluster
    filler = cluster.postgres.directory / "filler"
    try:
        await asyncio.to_thread(fill, filler)
        stage.fault()
        await _until_refused(stage)
        if log_too:
            await _fill_log(stage)
            # It ends itself, as it cannot write its log.
            await asyncio.wait_for(cluster.postgres.child.wait(), CRASH_SECONDS)
        await asyncio.sleep(FULL_SECONDS)
    finally:
        filler.unlink(missing_ok=True)
    stage.figures["postgres_ended"] = float(cluster.postgres.child.exit_code is not None)
    if cluster.postgres.child.exit_code is not None:
        await cluster.postgres.start()
    stage.healed()
    stage.release()
    await stage.recovered()


async def contrary_keys(stage: Stage) -> None:
    """Clients of two servers submit the same keys at once, in opposite order: each key is one job for both."""
    before = await _deadlocks(stage)
    stage.fault()
    one, other = stage.cluster.servers
    async with _client(one) as first, _client(other) as second:
        for count in KEYS:
            for _ in range(ROUNDS):
                keys = [new_key() for _ in range(count)]
                await _demand_same(stage, (first, second), keys)
        singles = [[new_key()] for _ in range(SINGLE_KEYS)]
        await asyncio.gather(*(_demand_same(stage, (first, second), keys) for keys in singles))
    await _cancel_all(stage)
    stage.healed()
    stage.figures["deadlocks"] = await _deadlocks(stage) - before
    await stage.recovered()


def disaster_cells() -> list[Cell]:
    """Return the cells: those of a small disk, of an old state, and of contrary clients."""
    return [
        _alone("disk full", partial(disk_full, log_too=False), SMALL_DISK),
        _alone("disk full, log too", partial(disk_full, log_too=True), SMALL_DISK),
        _alone("an older state, servers live on", partial(rewound, restart=False), TWO, judged_by_history=False),
        _alone("an older state, servers restarted", partial(rewound, restart=True), TWO, judged_by_history=False),
        Cell(
            point="same keys in opposite order",
            victim="two servers",
            act=contrary_keys,
            bound_seconds=CONTRARY_BOUND_SECONDS,
            shape=TWO,
        ),
    ]


def _alone(point: str, act: Act, shape: Shape, *, judged_by_history: bool = True) -> Cell:
    return Cell(
        point=point,
        victim="Postgres",
        act=act,
        bound_seconds=BOUNDS["PG"],
        shape=shape,
        alone=True,
        judged_by_history=judged_by_history,
    )


async def _until_refused(stage: Stage) -> None:
    """Submit until there is no room: the refusal says that nothing was stored, and it is true."""
    address = f"127.0.0.1:{stage.cluster.servers[0].grpc_port}"
    async with asyncio.timeout(REFUSED_SECONDS), Client(address, patience=IMPATIENT) as client:
        while True:
            key, invoked_at = new_key(), time.monotonic()
            padding = b'"' + b"x" * ROOM_BYTES + b'"'
            try:
                job_id = await client.submit(JobSpec(type=JobType.NOOP, payload=padding, key=key))
            except OrqestraError as error:
                clean = isinstance(error, StorageUnavailable)
                stage.demand(clean, f"the refusal does not say that nothing was stored: {error!r}")
                _note(stage, key, None, invoked_at)
                return
            _note(stage, key, job_id, invoked_at)
            stage.clients.noops.add(job_id)


async def _fill_log(stage: Stage) -> None:
    """Have Postgres begin one file of its log after the other, until there is no room for one."""
    connection = await asyncpg.connect(stage.cluster.db_url)
    try:
        for _ in range(LOG_SWITCHES):
            await connection.execute("SELECT pg_logical_emit_message(false, 'fill', 'log'), pg_switch_wal()")
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return
    finally:
        connection.terminate()


async def _demand_same(stage: Stage, clients: tuple[Client, Client], keys: Sequence[str]) -> None:
    """Submit by both at once, by the second in opposite order."""
    forwards, backwards = await asyncio.gather(
        _submit(stage, clients[0], keys),
        _submit(stage, clients[1], keys[::-1]),
        return_exceptions=True,
    )
    for answer in (forwards, backwards):
        if isinstance(answer, BaseException):
            stage.demand(False, f"{len(keys)} submits with keys failed: {answer!r}")
            return
    assert isinstance(forwards, tuple)
    assert isinstance(backwards, tuple)
    stage.demand(forwards == backwards[::-1], "a key has two ids")
    stage.demand(len(set(forwards)) == len(keys), "two keys have one id")


async def _submit(stage: Stage, client: Client, keys: Sequence[str]) -> tuple[int, ...]:
    invoked_at = time.monotonic()
    ids = await client.submit_many(JobSpec(type=JobType.NOOP, queue=UNSERVED, key=key) for key in keys)
    for key, job_id in zip(keys, ids, strict=True):
        _note(stage, key, job_id, invoked_at)
    stage.clients.noops.update(ids)
    return tuple(ids)


async def _cancel_all(stage: Stage) -> None:
    """End what nobody would run."""
    ids, invoked_at = sorted(stage.clients.noops), time.monotonic()
    for at in range(0, len(ids), limits.CANCEL_JOBS):
        await stage.cluster.client.cancel(ids[at : at + limits.CANCEL_JOBS])
    for job_id in ids:
        _note(stage, "", job_id, invoked_at, kind="cancel")


def _client(server: Server) -> Client:
    return Client(f"127.0.0.1:{server.grpc_port}")


def _note(
    stage: Stage, key: str, job_id: int | None, invoked_at: float, *, kind: Literal["submit", "cancel"] = "submit"
) -> None:
    stage.clients.operations.append(
        Operation(
            kind=kind,
            key=key,
            outcome="info" if job_id is None else "ok",
            job_id=job_id,
            run_id=None,
            invoked_at=invoked_at,
            answered_at=time.monotonic(),
        )
    )


async def _deadlocks(stage: Stage) -> int:
    [row] = await stage.fetch("SELECT sum(deadlocks)::bigint AS deadlocks FROM pg_stat_database")
    return int(row["deadlocks"] or 0)
