"""Builds that are broken on purpose, each by one mistake that is easy to make: the checker must see it.

They exist only in processes that `launch` starts. Each names the text or the method that it replaces,
and fails at once if that is not there any more: a mistake that was not made proves nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from orqestra._dispatch import Results, Successes
from orqestra.engine.direct import DirectMatch
from orqestra.engine.settlement import Settlement
from orqestra.model.decision import Ending
from orqestra.model.lifecycle import State
from orqestra.model.report import Report, Verdict
from orqestra.store import database, settling
from orqestra.store.database import Row
from orqestra.store.queries import Query, load_queries
from orqestra.store.settling import Settled, Settling
from orqestra.store.submitting import Batch, Direct, Outputs

# What holds a result back that is not the current attempt's.
SETTLE_GUARD: Final = "(j.state, j.session_id, j.fence, j.token) ="
# What a claim demands of a job.
CLAIM_GUARD: Final = """THEN j.available_at <= statement_timestamp() AND j.cancel_requested_at IS NULL
               ELSE false END"""
FENCE_RISES: Final = "fence = j.fence + 1, token = l.token"


def break_build(name: str) -> None:
    """Break this process as `name` says, before anything of it runs."""
    BUILDS[name]()


def no_fence() -> None:
    """A result is taken for whatever attempt of its job runs."""
    _replace("settle_completed", f"WHEN {SETTLE_GUARD}", f"WHEN j.state = '{State.RUNNING}' OR {SETTLE_GUARD}")

    def is_current(_report: Report, job: Row) -> bool:
        return bool(job["state"] == State.RUNNING)

    _patch(settling, "_is_current", is_current)


def ack_before_commit() -> None:
    """A result is acknowledged when it has come, and stored a moment later."""
    settle, settle_results = Settlement.settle, Settlement.settle_results

    def answer_and_settle(self: Settlement, reports: Sequence[Report]) -> None:
        told = [report for report in reports if report.ending in (Ending.SUCCEEDED, Ending.FAILED)]
        self._answer(told, [Verdict.ACCEPTED] * len(told))
        settle(self, reports)

    def answer_and_settle_results(self: Settlement, results: Results) -> None:
        acks, _ = Successes([results]).settle([job_id for job_id, _, _ in results.attempts()])
        for session_id, part in acks:
            if (session := self._sessions.get(session_id)) is not None:
                session.peer.answer(part)
        settle_results(self, results)

    _patch(Settlement, "settle", answer_and_settle)
    _patch(Settlement, "settle_results", answer_and_settle_results)


def no_guard() -> None:
    """A claim takes any job that it is told of and that has not ended, also one that runs."""
    _replace("claim_jobs", CLAIM_GUARD, "THEN true ELSE j.finished_at IS NULL END")


def advance_outside_tx() -> None:
    """The next step of a run is inserted once the step before is committed, by a transaction of its own."""
    advance, transact = Settling._advance, Settlement._transact
    later: list[Any] = []

    async def put_off(_self: Settling, runs: Any, outputs: Outputs) -> None:
        later.append((runs, outputs))

    async def transact_twice(self: Settlement, reports: Sequence[Report], *, wait_for_locks: bool) -> Settled:
        settled = await transact(self, reports, wait_for_locks=wait_for_locks)
        advances, later[:] = list(later), []
        async with self._database.transaction() as statements:
            second = Settling(statements, server_id=self._server_id, find_lane=self._lanes.find_existing)
            for runs, outputs in advances:
                await advance(second, runs, outputs)
        settled.hints.extend(second._settled.hints)
        return settled

    _patch(Settling, "_advance", put_off)
    _patch(Settlement, "_transact", transact_twice)


def attempt_as_fence() -> None:
    """The number of the attempt stands for the fence: what was lost and claimed again looks the same."""
    _replace("claim_jobs", FENCE_RISES, "fence = j.attempt + 1, token = l.token - l.token")
    match = DirectMatch.match

    def match_without_tokens(self: DirectMatch, batch: Batch, outputs: Outputs) -> Direct:
        direct = match(self, batch, outputs)
        return replace(direct, tokens=dict.fromkeys(direct.tokens, 0))

    _patch(DirectMatch, "match", match_without_tokens)


BUILDS: Final[dict[str, Callable[[], None]]] = {
    build.__name__: build for build in (no_fence, ack_before_commit, no_guard, advance_outside_tx, attempt_as_fence)
}


def _replace(query: str, old: str, new: str) -> None:
    """Have every connection use another text of a query."""

    def load_broken() -> dict[str, Query]:
        queries = load_queries()
        found = queries[query]
        assert found.text.count(old) == 1, f"{query} has no {old!r}"
        text = found.text.replace(old, new)
        return {**queries, query: Query(name=query, text=text, parameters=found.parameters)}

    _patch(database, "load_queries", load_broken)


def _patch(owner: object, name: str, replacement: object) -> None:
    assert hasattr(owner, name), f"{owner} has no {name}"
    setattr(owner, name, replacement)
