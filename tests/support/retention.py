"""Rows that ended long ago, with all that belongs to them, and the loops that delete them, taken step by step."""

from collections.abc import Iterable
from dataclasses import dataclass

from orqestra.engine.retention import ROUND_SECONDS, SPREAD, Deleted, Retention, retentions
from orqestra.model.lifecycle import TERMINAL, State
from tests.support.databases import bare
from tests.support.engine import Engine

DAY_MS = 24 * 3600 * 1000
AGES_MS = {State.COMPLETED: 7 * DAY_MS, State.FAILED: 30 * DAY_MS, State.CANCELLED: 30 * DAY_MS}
# More than any test needs.
STEPS_MAX = 1000

ADD_RUN = """
INSERT INTO workflow_runs (name, definition, state, created_at, finished_at)
SELECT 'w', '{}', $1, clock_timestamp() - $2 * interval '1 millisecond',
       CASE WHEN $1 <> 'running' THEN clock_timestamp() - $2 * interval '1 millisecond' END
RETURNING id"""

ADD_JOBS = """
INSERT INTO jobs (id, queue, lane_id, priority, type, payload, max_retries, backoff_base_ms, backoff_factor,
                  backoff_cap_ms, timeout_ms, grace_ms, run_id, step_key, previous_job_id, state, created_at,
                  available_at, delayed, fence, token, session_id, finished_at)
SELECT nextval('jobs_id_seq'), 'default', 1, 4, 'noop', '{}', 0, 1000, 2, 300000, 0, 5000, i.run_id, i.step_key,
       i.previous_id, i.state, clock_timestamp() - i.created_ms * interval '1 millisecond',
       clock_timestamp() - i.created_ms * interval '1 millisecond', i.state = 'retrying', 1, 99, 1,
       CASE WHEN i.state = ANY($1::text[]) THEN clock_timestamp() - i.ended_ms * interval '1 millisecond' END
FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::bigint[])
     WITH ORDINALITY AS i(state, created_ms, ended_ms, run_id, step_key, previous_id, position)
ORDER BY i.position
RETURNING id"""

ADD_ATTEMPTS = """
INSERT INTO attempts (job_id, fence, token, number, outcome, session_id)
SELECT id, fence, 99, 1, 'failed', 1 FROM unnest($1::bigint[]) AS j(id), unnest('{1,2}'::bigint[]) AS f(fence)"""

ADD_OUTPUT = """
INSERT INTO job_output (job_id, fence, stream, byte_offset, bytes)
SELECT id, 1, stream, 0, 'text' FROM unnest($1::bigint[]) AS j(id), unnest('{1,2}'::smallint[]) AS s(stream)"""


FAIL = """
UPDATE jobs SET state = 'failed', delayed = false, finished_at = created_at WHERE id = $1"""


@dataclass(frozen=True, kw_only=True)
class Past:
    """A job as it is found: `age_ms` after its end, if it has one, and `created_ms` (or as long) after its submit."""

    state: State = State.COMPLETED
    age_ms: int = 100 * DAY_MS
    created_ms: int | None = None
    run_id: int | None = None
    step_key: str | None = None
    previous_id: int | None = None


async def add_jobs(engine: Engine, *jobs: Past) -> list[int]:
    """Insert jobs in the order given, each with two attempts and two pieces of output; return their ids."""
    async with bare(engine.database) as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        rows = await connection.fetch(
            ADD_JOBS,
            sorted(TERMINAL),
            [job.state for job in jobs],
            [job.age_ms if job.created_ms is None else job.created_ms for job in jobs],
            [job.age_ms for job in jobs],
            [job.run_id for job in jobs],
            [job.step_key for job in jobs],
            [job.previous_id for job in jobs],
        )
        ids = sorted(row["id"] for row in rows)
        await connection.execute(ADD_ATTEMPTS, ids)
        await connection.execute(ADD_OUTPUT, ids)
    return ids


async def add_run(engine: Engine, state: State, *steps: State, age_ms: int = 100 * DAY_MS) -> tuple[int, list[int]]:
    """Insert a run of such an age and its steps, each after the one before; return their ids."""
    [row] = await engine.sql(ADD_RUN, state, age_ms)
    ids: list[int] = []
    for number, step in enumerate(steps):
        previous = ids[-1] if ids else None
        ids += await add_jobs(
            engine,
            Past(state=step, age_ms=age_ms, run_id=row["id"], step_key=f"step-{number}", previous_id=previous),
        )
    return row["id"], ids


async def fail(engine: Engine, job_id: int) -> None:
    """Let a job have failed long ago."""
    async with bare(engine.database) as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute(FAIL, job_id)


def loops_of(engine: Engine, ages_ms: dict[State, int] = AGES_MS) -> tuple[Retention, ...]:
    """Return the loops of a server that deletes after these times."""
    return retentions(engine.core, ages_ms, Deleted())


async def finish_round(loops: Iterable[Retention]) -> list[int]:
    """Let each loop get to the end of its round; return how many steps each took."""
    steps = []
    for loop in loops:
        for number in range(1, STEPS_MAX):
            if is_end_of_round(await loop.run_once()):
                steps.append(number)
                break
        else:
            raise AssertionError(f"{loop.name} does not come to the end of its round")
    return steps


def is_end_of_round(rest_seconds: float | None) -> bool:
    """Whether so long a rest is the one between two rounds."""
    return rest_seconds is not None and rest_seconds >= ROUND_SECONDS * SPREAD[0]


async def rows_left(engine: Engine) -> dict[str, set[int]]:
    """Return which jobs have rows, by table, and which runs."""
    [row] = await engine.sql(
        "SELECT (SELECT array_agg(id) FROM jobs) AS jobs, (SELECT array_agg(job_id) FROM attempts) AS attempts, "
        "(SELECT array_agg(job_id) FROM job_output) AS job_output, (SELECT array_agg(id) FROM workflow_runs) AS runs"
    )
    return {table: set(ids or ()) for table, ids in row.items()}
