"""The cases. Each starts what it needs, loads it with and without a burden, and compares."""

import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from benchmarks.flat.report import Comparison, Round
from benchmarks.flat.rig import Rig, rig
from tests.support.metrics import scrape

Case = Callable[["Options"], Coroutine[Any, Any, Comparison]]

AT_LEAST: Final = 0.9
# Younger than anything that is deleted by default, and older.
KEPT_DAYS: Final = 1.0
OLD_DAYS: Final = 40.0
DELETED: Final = "orqestra_deleted_rows_total{jobs}"


@dataclass(frozen=True, kw_only=True)
class Options:
    """How large the burdens are. `jobs` is the load of one round, `rounds` how many of them bear the burden."""

    jobs: int
    rounds: int
    finished_rows: int
    hold_minutes: float
    waiting: int
    few_waiting: int
    old_rows: int


async def finished(options: Options) -> Comparison:
    """Many finished rows in the table, against none: two systems, loaded in turns.

    They were added all at once and are longer than what comes, so that many of their pages have room left for one of
    those. A table that grew by such jobs has none. So that is taken first, once for all time, and told apart.
    """
    async with rig() as plain, rig() as full:
        await full.add_finished(options.finished_rows, KEPT_DAYS)
        await warm_up(options, plain)
        taking = await full.take_room(options.jobs)
        rounds = [await plain.load(options.jobs, burdened=False)]
        for _ in range(options.rounds):
            rounds.append(await full.load(options.jobs, burdened=True))
            rounds.append(await plain.load(options.jobs, burdened=False))
        size = await full.database.fetchval("SELECT pg_total_relation_size('jobs')")
    about = {
        "finished_rows": options.finished_rows,
        "table_bytes": size,
        "taking_room": [each.document() for each in taking],
    }
    return Comparison(case="finished", rounds=rounds, at_least=AT_LEAST, about=about)


async def held(options: Options) -> Comparison:
    """A snapshot that is held for minutes under load, so that no dead row can be removed; its second half counts."""
    async with rig() as system:
        await warm_up(options, system)
        before = await loads(options, system)
        during: list[Round] = []
        holder = await asyncpg.connect(system.stack.db_url)
        transaction = holder.transaction(isolation="repeatable_read", readonly=True)
        await transaction.start()
        await holder.fetch("SELECT id FROM lanes")
        until = time.monotonic() + options.hold_minutes * 60
        while time.monotonic() < until:
            during.append(await system.load(options.jobs, burdened=True))
        dead = await system.database.fetchval("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'jobs'")
        await transaction.rollback()
        await holder.close()
        await system.tidy()
        after = await loads(options, system)
    half = len(during) // 2
    return Comparison(
        case="held",
        rounds=[*before, *during[half:], *after],
        at_least=AT_LEAST,
        about={
            "hold_minutes": options.hold_minutes,
            "dead_rows": dead,
            "first_half": [each.document() for each in during[:half]],
        },
    )


async def waiting(options: Options) -> Comparison:
    """Many jobs that wait for the workers, against few; and what their waiting costs the server."""
    async with rig() as system:
        await warm_up(options, system)
        idle_mb = system.server_mb()
        before = await drains(options, system)
        ids = await system.let_wait(options.waiting)
        waiting_mb = system.server_mb()
        many = await system.drain(ids, burdened=True)
        peak_mb = system.server_peak_mb()
        after = await drains(options, system)
    return Comparison(
        case="waiting",
        rounds=[*before, many, *after],
        at_least=AT_LEAST,
        about={"server_mb": {"idle": idle_mb, "waiting": waiting_mb, "peak": peak_mb}},
    )


async def deleting(options: Options) -> Comparison:
    """Old rows that are deleted under load, against none; a round counts if rows were left to delete at its end."""
    async with rig() as system:
        await warm_up(options, system)
        before = await loads(options, system)
        # In the order of their ids, as they would have come.
        await system.database.execute("TRUNCATE jobs")
        last_old = await system.add_finished(options.old_rows, OLD_DAYS)
        # A new server begins at once with what is oldest.
        await system.restart_server()
        began = time.monotonic()
        during: list[Round] = []
        deleted_per_s = 0.0
        while not during or await system.has(last_old):
            during.append(await system.load(options.jobs, burdened=True))
            deleted = (await scrape(system.stack.http_addr))[DELETED]
            deleted_per_s = deleted / (time.monotonic() - began)
        await system.tidy()
        after = await loads(options, system)
    return Comparison(
        case="deleting",
        # In the last one they came to an end; if it is the only one, there were too few.
        rounds=[*before, *(during[:-1] or during), *after],
        at_least=AT_LEAST,
        about={"old_rows": options.old_rows, "deleted_per_s": round(deleted_per_s)},
    )


async def warm_up(options: Options, *systems: Rig) -> None:
    """Load each once, which does not count."""
    for system in systems:
        await system.load(options.jobs, burdened=False)


async def loads(options: Options, system: Rig) -> list[Round]:
    """Load a system that bears nothing, as often as the options say."""
    return [await system.load(options.jobs, burdened=False) for _ in range(options.rounds)]


async def drains(options: Options, system: Rig) -> list[Round]:
    """Let few jobs wait and be drained, as often as the options say."""
    few = options.few_waiting
    return [await system.drain(await system.let_wait(few), burdened=False) for _ in range(options.rounds)]


CASES: Final[dict[str, Case]] = {"finished": finished, "held": held, "waiting": waiting, "deleting": deleting}
