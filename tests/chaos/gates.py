"""Holds a transaction of the product in the middle of its COMMIT, from inside Postgres.

A deferred constraint trigger runs when everything is written and nothing is committed. It waits there
for a lock that the test has: the one moment that no failpoint in a program can reach, since most of our
changes are a single statement.
"""

import asyncio
from contextlib import suppress
from enum import StrEnum
from typing import Self

import asyncpg

from orqestra.model.lifecycle import TERMINAL, State

POLL_SECONDS = 0.005
# Two advisory locks: who holds the first may pass, who got the second is the one that waits.
GATE, VISITOR = 7_700_001, 7_700_002

_ENDS = ", ".join(f"'{state}'" for state in sorted(TERMINAL))


class Gate(StrEnum):
    """Which transaction is held."""

    SUBMIT = "submit.before_commit"
    CLAIM = "claim.before_commit"
    RESULT = "result.before_commit"
    EXPIRE = "expire.before_commit"
    CANCEL = "cancel.before_commit"
    ADVANCE = "workflow.after_advance_stmt_before_commit"


WHEN = {
    Gate.SUBMIT: ("INSERT", "NEW.run_id IS NULL"),
    Gate.CLAIM: ("UPDATE", f"OLD.state <> '{State.RUNNING}' AND NEW.state = '{State.RUNNING}'"),
    Gate.RESULT: ("UPDATE", f"OLD.state = '{State.RUNNING}' AND NEW.state IN ({_ENDS})"),
    Gate.EXPIRE: ("UPDATE", f"OLD.state = '{State.RUNNING}' AND NEW.lost_count > OLD.lost_count"),
    Gate.CANCEL: ("UPDATE", "OLD.cancel_requested_at IS NULL AND NEW.cancel_requested_at IS NOT NULL"),
    Gate.ADVANCE: ("INSERT", "NEW.run_id IS NOT NULL AND NEW.previous_job_id IS NOT NULL"),
}

FUNCTION = f"""
CREATE OR REPLACE FUNCTION chaos_gate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Only the first comer waits; what else commits meanwhile is not held up.
    IF pg_try_advisory_xact_lock({VISITOR}) THEN
        PERFORM pg_advisory_xact_lock_shared({GATE});
    END IF;
    RETURN NULL;
END $$;
"""


WAITING = """
SELECT pid, application_name FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND objid = $1 AND NOT granted
"""


class ClosedGate:
    """A gate that is closed from `close` to `open`."""

    def __init__(self, url: str, gate: Gate) -> None:
        self._url = url
        self._gate = gate
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._visitor: int | None = None

    async def __aenter__(self) -> Self:
        event, condition = WHEN[self._gate]
        connection = await asyncpg.connect(self._url)
        await connection.execute(FUNCTION)
        await connection.execute("SELECT pg_advisory_lock($1)", GATE)
        await connection.execute(
            f"CREATE CONSTRAINT TRIGGER chaos_gate AFTER {event} ON jobs DEFERRABLE INITIALLY DEFERRED"
            f" FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION chaos_gate()"
        )
        self._connection = connection
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.open()
        # Postgres may have been killed meanwhile; the trigger outlives it.
        connection = await asyncpg.connect(self._url)
        try:
            await connection.execute("DROP TRIGGER IF EXISTS chaos_gate ON jobs")
        finally:
            await connection.close()

    async def visitor(self, seconds: float = 20.0) -> str:
        """Return the application whose transaction waits in its COMMIT; TimeoutError if none comes."""
        assert self._connection is not None
        async with asyncio.timeout(seconds):
            while True:
                row = await self._connection.fetchrow(WAITING, GATE)
                if row is not None:
                    self._visitor = row["pid"]
                    return str(row["application_name"])
                await asyncio.sleep(POLL_SECONDS)

    async def open(self, *, commit: bool = True) -> None:
        """Let the transaction that waits commit, or end it; harmless if Postgres has done so already."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                if not commit and self._visitor is not None:
                    await connection.execute("SELECT pg_terminate_backend($1, 2000)", self._visitor)
                await connection.close(timeout=2)
