"""Evidence made by hand: a small world whose every step leaves the traces that the real one leaves.

Tests of the checker play a healthy story on it, or one with a single thing wrong.
"""

import json
from datetime import UTC, datetime
from math import ceil
from typing import Any, Literal

from orqestra.model.decision import Outcome
from orqestra.model.lifecycle import TERMINAL, WAITING, RunState, State
from orqestra.model.report import Reason
from tests.chaos.evidence import Change, Evidence, FinalRows, Hints, JournalLine, Operation, Row, Stop, Transaction
from tests.chaos.flows import ENTRY

BOOTED_AT = 1_700_000_000.0
BEGAN_AT = BOOTED_AT + 1000
LANE = 5
STEP_SECONDS = 0.1
LEASE_SECONDS = 3


class Scene:
    """One world. Each call is one commit, one line of the journal or one call of a client, a tenth of a second later.

    Columns named in a call replace what would be written.
    """

    def __init__(self) -> None:
        self.now = BEGAN_AT
        self.tables: dict[str, dict[Any, dict[str, Any]]] = {
            name: {} for name in ("jobs", "attempts", "sessions", "workflow_runs", "outbox")
        }
        self.history: list[Transaction] = []
        self.journal: list[JournalLine] = []
        self.operations: list[Operation] = []
        self.stops: list[Stop] = []
        self._pending: list[Change] = []
        self._held = False

    def at(self, seconds: float = 0.0) -> datetime:
        """Return a time on Postgres' clock, from now."""
        return datetime.fromtimestamp(self.now + seconds, UTC)

    def together(self) -> "Scene":
        """Make one transaction of all commits up to `commit()`."""
        self._held = True
        return self

    def commit(self) -> None:
        """Commit what was written."""
        self._held = False
        self._commit()

    # What clients do

    def call(self, kind: Literal["submit", "cancel", "retry", "trigger"], **fields: Any) -> None:
        """Note a call; it was answered well if nothing else is said."""
        given = {"key": "", "outcome": "ok", "job_id": None, "run_id": None, **fields}
        self.operations.append(Operation(kind=kind, invoked_at=self.now, answered_at=self.now, **given))

    def submit(self, job_id: int = 1, *, hint: bool = True, call: bool = True, **columns: Any) -> None:
        """Store a job with its hint, and note the call."""
        if call:
            self.call("submit", key=f"key-{job_id}", job_id=job_id)
        self.write("jobs", job_id, None, **{**self._new_job(job_id), **columns})
        if hint:
            self.hint(job_id)
        self._commit()

    def trigger(self, run_id: int = 3, job_id: int = 1, steps: int = 2) -> None:
        """Store a run with its first step."""
        self.call("trigger", key=f"run-{run_id}", run_id=run_id)
        definition = json.dumps({"steps": [{"key": f"step-{number}"} for number in range(1, steps + 1)]})
        run = {"id": run_id, "state": RunState.RUNNING, "definition": definition, "idempotency_key": f"run-{run_id}"}
        self.write("workflow_runs", run_id, None, **run, cancel_requested_at=None, error=None)
        self.submit(job_id, call=False, idempotency_key=None, run_id=run_id, step_key="step-1")

    def ask_cancel(self, job_id: int = 1) -> None:
        """Cancel a running job: its attempt is yet to end."""
        self.call("cancel", job_id=job_id)
        self.update(job_id, cancel_requested_at=self.at())

    def revive(self, job_id: int = 1, *, call: bool = True) -> None:
        """Retry a job that has ended."""
        if call:
            self.call("retry", job_id=job_id)
        anew: dict[str, Any] = {"attempt": 0, "lost_count": 0, "return_count": 0, "finished_at": None, "stdout": None}
        self.update(job_id, state=State.PENDING, available_at=self.at(), cancel_requested_at=None, **anew)

    # What workers and servers do

    def connect(self, session_id: int = 1, worker: str = "w1", slots: int = 2, **columns: Any) -> None:
        """Open a session."""
        identity = {"id": session_id, "worker_id": worker, "incarnation": f"{worker}-a", "number": session_id}
        offer = {"slots": slots, "queues": ["default"], "labels": [], "connected_at": self.at()}
        lease = {"lease_expires_at": self.at(LEASE_SECONDS), "closed_at": None, "closed_reason": None}
        self.write("sessions", session_id, None, **{**identity, **offer, **lease, **columns})
        self._commit()

    def close(self, session_id: int = 1, reason: str = "lapsed", *, early: bool = False) -> None:
        """Close a session; one that lapses, when its lease is over."""
        if reason == "lapsed" and not early:
            self.now = max(self.now, self.tables["sessions"][session_id]["lease_expires_at"].timestamp())
        before = dict(self.tables["sessions"][session_id])
        self.write("sessions", session_id, before, closed_at=self.at(), closed_reason=reason)
        self._commit()

    def claim(self, job_id: int = 1, session_id: int = 1, **columns: Any) -> None:
        """Begin an attempt."""
        fence = self.tables["jobs"][job_id]["fence"] + 1
        owner = {"session_id": session_id, "worker_id": self.tables["sessions"][session_id]["worker_id"]}
        claimed = {"state": State.RUNNING, "delayed": False, "fence": fence, "token": 100 + fence}
        self.update(job_id, **{**claimed, **owner, "started_at": self.at(), **columns})

    def tell(self, kind: Literal["start", "overlap", "end"], job_id: int = 1, fence: int | None = None) -> None:
        """Have the command of an attempt, the current one if none is named, write a line."""
        row = self.tables["jobs"].get(job_id, {"fence": 1, "attempt": 0})
        fence = row["fence"] if fence is None else fence
        uptime = round(self.now - BOOTED_AT, 2)
        line = JournalLine(kind=kind, job_id=job_id, fence=fence, attempt=row["attempt"] + 1, pid=9, uptime_s=uptime)
        self.journal.append(line)
        self.now += STEP_SECONDS

    def settle(self, outcome: Outcome, state: State, job_id: int = 1, **columns: Any) -> None:
        """End the attempt of a job, with a record if it is not completed, and with a hint if it goes on."""
        row = self.tables["jobs"][job_id]
        printed = f"{job_id} {row['fence']} {row['attempt'] + 1}\n".encode()
        counts = outcome in {Outcome.COMPLETED, Outcome.FAILED}
        output = {"stdout": printed, "stdout_bytes": len(printed), "truncated": False, "output": printed}
        if not counts:
            output = {"stdout": None, "stdout_bytes": 0, "truncated": False, "output": None}
        reason = Reason.WORKER_LOST if outcome is Outcome.LOST else Reason.EXITED
        if state is not State.COMPLETED:
            record = {"job_id": job_id, "outcome": outcome, "reason": reason, **output}
            named = {name: row[name] for name in ("fence", "token", "session_id", "worker_id")}
            given = {name: value for name, value in columns.items() if name in {"reason", "stdout"}}
            self.write("attempts", (job_id, row["fence"]), None, **{**record, **named, **given})
        now = {"attempt": row["attempt"] + counts, "lost_count": row["lost_count"] + (outcome is Outcome.LOST)}
        ends = {"finished_at": self.at() if state in TERMINAL else None, "delayed": state is State.RETRYING}
        self.update(job_id, **{"state": state, "reason": reason, **now, **ends, **output, **columns})

    def run(self, job_id: int = 1, session_id: int = 1) -> None:
        """Claim a job, run its command and complete it."""
        self.claim(job_id, session_id)
        self.tell("start", job_id)
        self.tell("end", job_id)
        self.settle(Outcome.COMPLETED, State.COMPLETED, job_id)

    # Rows

    def update(self, job_id: int, *, hint: bool = True, **columns: Any) -> None:
        """Write a version of a job, with a hint if it becomes claimable."""
        before = dict(self.tables["jobs"][job_id])
        self.write("jobs", job_id, before, **columns)
        if hint and columns.get("state") in WAITING:
            self.hint(job_id)
        self._commit()

    def hint(self, job_id: int) -> None:
        """Store the hint of a job."""
        row = self.tables["jobs"].get(job_id, {"priority": 4, "delayed": False})
        due = ceil(row["available_at"].timestamp() * 1000) if row["delayed"] else 0
        entries = ENTRY.pack(job_id, LANE, row["priority"], due)
        key = 1 + len(self.history) * 10 + len(self._pending)
        self.write("outbox", key, None, id=key, entries=entries)
        del self.tables["outbox"][key]  # the relay is quick

    def write(self, table: str, key: object, before: Row | None, **columns: Any) -> None:
        """Write a version of any row, to be committed."""
        after = {**(before or {}), **columns}
        self.tables[table][key] = after
        kind: Literal["insert", "update"] = "insert" if before is None else "update"
        self._pending.append(Change(table=table, kind=kind, before=before, after=dict(after)))
        if not self._held and table == "workflow_runs" and before is not None:
            self._commit()

    def final(self) -> FinalRows:
        """Return what the tables hold."""
        runs = [{**row, "steps": len(json.loads(row["definition"])["steps"])} for row in self._rows("workflow_runs")]
        return FinalRows(
            jobs=self._rows("jobs"),
            attempts=self._rows("attempts"),
            runs=tuple(runs),
            sessions=self._rows("sessions"),
            lanes=({"id": LANE, "queue": "default", "requires": []},),
        )

    def evidence(self, **fields: Any) -> Evidence:
        """Return the evidence, with `fields` in place of what it would hold."""
        known: dict[str, Any] = {
            "history": tuple(self.history),
            "journal": tuple(self.journal),
            "operations": tuple(self.operations),
            "final": self.final(),
            "booted_at": BOOTED_AT,
            "stops": tuple(self.stops),
            "hints": Hints(ready={}),
        }
        return Evidence(**{**known, **fields})

    def _rows(self, table: str) -> tuple[Row, ...]:
        return tuple(self.tables[table].values())

    def _commit(self) -> None:
        if self._held or not self._pending:
            return
        number = len(self.history) + 1
        self.history.append(
            Transaction(xid=700 + number, lsn=1000 * number, committed_at=self.at(), changes=tuple(self._pending))
        )
        self._pending = []
        self.now += STEP_SECONDS

    def _new_job(self, job_id: int) -> dict[str, Any]:
        return {
            **{"id": job_id, "lane_id": LANE, "priority": 4, "idempotency_key": f"key-{job_id}", "max_retries": 3},
            **{"run_id": None, "step_key": None, "previous_job_id": None, "created_at": self.at()},
            **{"state": State.PENDING, "available_at": self.at(), "delayed": False, "attempt": 0, "lost_count": 0},
            **{"return_count": 0, "cancel_requested_at": None, "fence": 0, "token": None, "session_id": None},
            **{"worker_id": None, "started_at": None, "finished_at": None, "exit_code": None, "reason": None},
            **{"stdout": None, "stdout_bytes": None, "truncated": None, "output": None},
        }
