"""What old pages have left over is taken once: a job that is put there stays, and vacuum frees it for nobody else."""

import asyncpg

from benchmarks.flat.rig import FINISHED
from orqestra.embedded.postgres import EmbeddedPostgres
from tests.support.databases import fresh_database
from tests.support.engine import Engine, Worker, engine_on, noop, succeeded
from tests.support.plans import Sql

OLD_ROWS = 10_000
BATCH = 1000
# So many jobs find room in the old pages at first.
BATCHES = 3
IN_OLD_PAGES = "SELECT count(*) FROM jobs WHERE id = ANY($1::bigint[]) AND (ctid::text::point)[0] < $2"


async def test_no_old_page_is_visited_again_and_again(postgres: EmbeddedPostgres) -> None:
    async with fresh_database(postgres) as url, engine_on(url) as engine:
        worker = await engine.connect()
        connection = await asyncpg.connect(url)
        await connection.execute("ALTER TABLE jobs SET (autovacuum_enabled = false)")
        # Past the trigger that lets nobody be born finished.
        async with connection.transaction():
            await connection.execute("SET LOCAL session_replication_role = replica")
            await connection.execute(FINISHED, OLD_ROWS, 1.0)
        await connection.execute("VACUUM (ANALYZE) jobs")
        pages = await connection.fetchval("SELECT pg_relation_size('jobs') / current_setting('block_size')::integer")

        first = [await visitors(engine, worker, connection, pages) for _ in range(BATCHES)]
        await connection.execute("VACUUM jobs")
        again = [await visitors(engine, worker, connection, pages) for _ in range(BATCHES)]
        await connection.close()

    assert sum(first) > pages / 5, "there was nothing to visit"
    assert sum(again) < pages / 50


async def visitors(engine: Engine, worker: Worker, connection: Sql, pages: int) -> int:
    """Run a batch of jobs to their ends; return how many of them were stored in the first `pages`."""
    jobs = [job_id or 0 for job_id in (await engine.store(*[noop()] * BATCH)).ids]
    found: int = await connection.fetchval(IN_OLD_PAGES, jobs, pages)
    await engine.settle(*map(succeeded, await engine.claim(worker, *jobs)))
    return found
