"""How retention finds its rows: by primary keys, whatever the statistics say, or by the index of the unhappy."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from orqestra.embedded.postgres import EmbeddedPostgres
from orqestra.engine.retention import BATCH_JOBS, BATCH_RUNS
from orqestra.model.lifecycle import TERMINAL, State
from orqestra.store.queries import load_queries
from tests.support.databases import bare, fresh_database
from tests.support.engine import Engine, engine_on
from tests.support.plans import add_jobs, custom_plan, ways_to
from tests.support.retention import AGES_MS

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROWS = 100_000
RUNS = 20_000
QUERIES = load_queries()
# Query -> the ways that it may take to each table.
ALLOWED = {
    "find_old_jobs": {"jobs": {"jobs_pkey"}},
    "find_old_unhappy_jobs": {"jobs": {"jobs_unhappy", "jobs_pkey"}},
    "find_old_runs": {"workflow_runs": {"workflow_runs_pkey"}},
    "delete_jobs": {"jobs": {"jobs_pkey"}, "attempts": {"attempts_pkey"}, "job_output": {"job_output_pkey"}},
    "delete_runs": {
        "workflow_runs": {"workflow_runs_pkey"},
        "jobs": {"jobs_step"},
        "attempts": {"attempts_pkey"},
        "job_output": {"job_output_pkey"},
    },
}
# What the table is full of -> whether it is analyzed.
CONDITIONS = {
    f"{state}, {known}": (state, known)
    for state in (State.COMPLETED, State.FAILED, State.PENDING)
    for known in ("analyzed", "without statistics")
}
ADD_ATTEMPTS = """
INSERT INTO attempts (job_id, fence, token, number, outcome, session_id)
SELECT id, 1, 99, 1, 'failed', 1 FROM unnest($1::bigint[]) AS j(id)"""
ADD_OUTPUT = """
INSERT INTO job_output (job_id, fence, stream, byte_offset, bytes)
SELECT id, 1, 1, 0, 'text' FROM unnest($1::bigint[]) AS j(id)"""
ADD_RUNS = """
WITH runs AS (
    INSERT INTO workflow_runs (name, definition, state, finished_at)
    SELECT 'w', '{}', 'completed', now() FROM generate_series(1, $1) RETURNING id
)
UPDATE jobs SET run_id = id, step_key = 'step' WHERE id IN (SELECT id FROM runs)"""


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=CONDITIONS)
async def full(postgres: EmbeddedPostgres, request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
    """A database full of jobs in one state, a part of them steps of runs."""
    state, known = CONDITIONS[request.param]
    async with fresh_database(postgres) as url, engine_on(url) as engine:
        connection = await asyncpg.connect(url)
        for table in ("jobs", "attempts", "job_output", "workflow_runs"):
            await connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
        ids = await add_jobs(connection, ROWS, state)
        await connection.execute(ADD_ATTEMPTS, ids)
        await connection.execute(ADD_OUTPUT, ids)
        await connection.execute(ADD_RUNS, RUNS)
        if known == "analyzed":
            await connection.execute("ANALYZE")
        await connection.close()
        yield engine


def values_of(name: str) -> dict[str, Any]:
    most = BATCH_RUNS if name == "delete_runs" else BATCH_JOBS
    values = {
        "after": 1000,
        # As part of the table as a span is of a large one.
        "span": ROWS // 10,
        "rows": most,
        "is_begin": True,
        "ids": list(range(1, most + 1)),
        "states": sorted(TERMINAL),
        "after_ms": [AGES_MS[state] for state in sorted(TERMINAL)],
    }
    return {parameter: values[parameter] for parameter in QUERIES[name].parameters}


@pytest.mark.parametrize("name", ALLOWED)
async def test_the_plan_takes_the_allowed_ways(full: Engine, name: str) -> None:
    async with bare(full.database) as connection:
        plan = await custom_plan(connection, QUERIES[name], values_of(name))

    assert {table: ways_to(table, plan) for table in ALLOWED[name]} == ALLOWED[name], plan
