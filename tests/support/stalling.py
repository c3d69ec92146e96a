"""Statements that wait, in Postgres, until they are told to go on."""

import asyncio

from tests.support.server import Sql
from tests.support.waiting import until

STALL = 4711


async def stall_claims(sql: Sql) -> None:
    """Let every claim wait, in Postgres, for a lock that this connection has."""
    await sql.execute(
        "CREATE FUNCTION stall() RETURNS trigger LANGUAGE plpgsql AS"
        f" 'BEGIN PERFORM pg_advisory_xact_lock_shared({STALL}); RETURN NEW; END';"
        " CREATE TRIGGER stall BEFORE UPDATE ON jobs FOR EACH ROW WHEN (NEW.state = 'running')"
        f" EXECUTE FUNCTION stall(); SELECT pg_advisory_lock({STALL})"
    )


async def stalled(sql: Sql) -> list[int]:
    """Return the pids of the claims that wait, once there are any."""
    async with asyncio.timeout(5):
        while not (rows := await sql.fetch("SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")):
            await asyncio.sleep(0.01)
    return [row["pid"] for row in rows]


async def go_on(sql: Sql) -> None:
    """Let claims go on."""
    await sql.execute(f"SELECT pg_advisory_unlock({STALL})")


async def submits_blocked(sql: Sql) -> None:
    """Return once a submit waits for a lock on jobs."""
    await until(
        lambda: sql.fetchval("SELECT count(*) > 0 FROM pg_locks WHERE relation = 'jobs'::regclass AND NOT granted")
    )
