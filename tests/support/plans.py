"""Query plans as Postgres tells them, and rows by the thousand to mislead it with."""

import json
from collections.abc import Iterator
from typing import Any, TypeAlias

import asyncpg

from orqestra.store.queries import Query

Sql: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

INSERT = """
INSERT INTO jobs (id, queue, lane_id, priority, type, payload, max_retries, backoff_base_ms, backoff_factor,
                  backoff_cap_ms, timeout_ms, grace_ms, available_at, delayed, state, fence, token, session_id, attempt,
                  finished_at)
SELECT nextval('jobs_id_seq'), 'default', $2, 4, 'noop', '{}', 0, 1000, 2, 300000, 0, 5000, now(), false, $3,
       CASE WHEN $3 = 'pending' THEN 0 ELSE 1 END,
       CASE WHEN $3 <> 'pending' THEN 99 END, CASE WHEN $3 <> 'pending' THEN $4::bigint END, 0,
       CASE WHEN $3 IN ('completed', 'failed', 'cancelled') THEN now() END
FROM generate_series(1, $1)
RETURNING id"""


async def add_jobs(connection: Sql, count: int, state: str, *, lane: int = 1, session: int = 1) -> list[int]:
    """Insert jobs in any state, past the trigger that would forbid it; return the ids.

    The trigger is not touched: a change of the table would make every session plan anew.
    """
    async with connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        rows = await connection.fetch(INSERT, count, lane, state, session)
    return [row["id"] for row in rows]


async def custom_plan(connection: Sql, query: Query, values: dict[str, Any]) -> dict[str, Any]:
    """Return the plan for these very values."""
    text = await connection.fetchval(f"EXPLAIN (FORMAT JSON) {query.text}", *query.arguments(values))
    return _root(text)


async def plan_for_all_times(connection: Sql, query: Query) -> dict[str, Any]:
    """Return the plan for any values; the connection has to be one that makes such plans."""
    await connection.execute(f"PREPARE explained AS {query.text}")
    nothing = ", ".join(["NULL"] * len(query.parameters))
    try:
        text = await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE explained({nothing})")
    finally:
        await connection.execute("DEALLOCATE explained")
    return _root(text)


def ways_to_jobs(plan: dict[str, Any]) -> set[str]:
    """Return how a plan reads `jobs`: the index, or "Seq Scan"."""
    return ways_to("jobs", plan)


def ways_to(table: str, plan: dict[str, Any]) -> set[str]:
    """Return how a plan reads a table: the index, or "Seq Scan"."""
    return {
        node.get("Index Name", node["Node Type"])
        for node in _nodes(plan)
        if (node["Node Type"] == "Bitmap Index Scan" and str(node["Index Name"]).startswith(f"{table}_"))
        or (node.get("Relation Name") == table and node["Node Type"] not in {"ModifyTable", "Bitmap Heap Scan"})
    }


def walks(plan: dict[str, Any]) -> list[str]:
    """Return the tables and indexes that a plan reads from end to end."""
    return [
        str(node.get("Index Name", node.get("Relation Name")))
        for node in _nodes(plan)
        if node["Node Type"] == "Seq Scan" or ("Index Name" in node and "Index Cond" not in node)
    ]


def sort_keys(plan: dict[str, Any]) -> list[list[str]]:
    """Return by what a plan sorts, the outermost first."""
    return [node["Sort Key"] for node in _nodes(plan) if "Sort Key" in node]


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


def _root(text: str) -> dict[str, Any]:
    root: dict[str, Any] = json.loads(text)[0]["Plan"]
    return root
