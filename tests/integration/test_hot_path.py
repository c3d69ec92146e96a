"""Python moves batches: from a message to its statement, and from a statement to its message, nothing runs per job.

Each stage gets the same number of messages twice, with 250 jobs each and with 1000. What of the package runs more often
for more jobs is named, down to the turns of a comprehension. What still does so is listed below: whoever takes one of
these away takes it off the list, and none is added unseen. Libraries are not counted: asyncpg asks of each value in an
array whether it is one itself, by `isinstance` of an abstract class.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeAlias
from uuid import uuid4

import pytest

from orqestra.engine.relay import Relay
from orqestra.model.job import JobSpec
from orqestra.v1 import jobs_pb2
from orqestra.v1.worker_pb2 import Assignment
from tests.support.lossy_postgres import LossyPostgres
from tests.support.raw_worker import RawStream, Verdict
from tests.support.server import RunningServer, noop
from tests.support.steps import Steps
from tests.support.waiting import until

MESSAGES: Final = 4
# A statement takes a thousand at most.
FEW, MANY = 250, 1000
# What runs for one job in twenty is seen, and what goes by the clock meanwhile is far less.
SEEN_TIMES: Final = (MANY - FEW) * MESSAGES // 20

EMPTY: Final = b"{}"
# A comprehension each: which token goes with which job, and the ids that are answered.
TOKENS: Final = "engine/claims.py::Claims._claim"
ANSWER: Final = "engine/intake.py::Intake._hand_over"
# Another one where a job has no payload. A payload that no other job of the message has is looked at by itself.
CHECK: Final = "rpc/submits.py::Submits._check"
LOOKED_AT: Final = {CHECK, "model/job.py::check_type_and_payload", "model/job.py::_check_json"}
# Where there is more than one kind of job in a statement.
KINDS: Final = "store/submitting.py::Batch.joining"
DUE: Final = {"engine/direct.py::_due", "engine/direct.py::_is_due", "engine/direct.py::DirectMatch.match"}

Specs: TypeAlias = Callable[[int], list[jobs_pb2.JobSpec]]
Stage: TypeAlias = Callable[[RunningServer, RawStream, int, Steps], Awaitable[None]]

SUBMITS: Final[dict[str, tuple[Specs, set[str]]]] = {
    "alike": (lambda jobs: [noop(payload=EMPTY)] * jobs, set()),
    "with keys": (lambda jobs: [noop(payload=EMPTY, idempotency_key=str(uuid4())) for _ in range(jobs)], set()),
    "without payload": (lambda jobs: [noop()] * jobs, {CHECK}),
    "each with a payload": (lambda jobs: [noop(payload=b"%d" % at) for at in range(jobs)], LOOKED_AT),
    "of two kinds": (lambda jobs: [noop(payload=EMPTY, timeout_ms=at % 2) for at in range(jobs)], {KINDS}),
}


async def submit(server: RunningServer, specs: Sequence[jobs_pb2.JobSpec]) -> None:
    """Submit jobs in one message."""
    answer = await server.jobs.SubmitBatch(jobs_pb2.SubmitBatchRequest(jobs=specs))
    assert len(answer.ids) == len(specs)


async def take(stream: RawStream, jobs: int) -> Sequence[Assignment]:
    """Return the jobs of one message, which are so many."""
    assigned: Sequence[Assignment] = (await stream.next("assign")).jobs
    assert len(assigned) == jobs
    return assigned


async def claim(server: RunningServer, stream: RawStream, jobs: int, steps: Steps) -> Sequence[Assignment]:
    """Let jobs wait that there is no slot for; count from the beat that makes room until they have come."""
    await submit(server, [noop(payload=EMPTY)] * jobs)
    with steps:
        await stream.beat(jobs)
        assigned = await take(stream, jobs)
    # Read before whatever the stream sends next.
    await stream.beat(0)
    return assigned


async def settle(stream: RawStream, assigned: Sequence[Assignment], steps: Steps, **result: Any) -> None:
    """Let jobs end; count from the message with their results until all are answered."""
    with steps:
        verdicts = await stream.finish(assigned, **result)
    assert verdicts == [Verdict.VERDICT_ACCEPTED] * len(assigned)


async def nothing_waits(server: RunningServer, jobs: int) -> None:
    """Return once so many new jobs would be matched directly."""
    parts = server.server._parts
    [relay] = [service for service in parts.services if isinstance(service, Relay)]
    lane = await parts.lanes.find(JobSpec(type="noop"))

    def would_match() -> int:
        matched, *_ = parts.sessions.matcher.room(lane, int(relay.clock.monotonic() * 1000))
        return matched

    await until(lambda: relay.is_idle and would_match() >= jobs)


async def run_more_often(server: RunningServer, stage: Stage, *, has_slots: bool = False) -> set[str]:
    """Return the functions that run, or a part of them, more often for many jobs in as many messages."""
    few, many = Steps(), Steps()
    for jobs, steps in ((FEW, few), (MANY, many)):
        async with server.worker(slots=jobs if has_slots else 0) as worker:
            stream = await worker.open()
            for _ in range(MESSAGES):
                await stage(server, stream, jobs, steps)
    return many.beyond(few, SEEN_TIMES)


async def test_from_results_to_the_statement_and_to_the_answer(frail: RunningServer, lossy: LossyPostgres) -> None:
    async def stage(server: RunningServer, stream: RawStream, jobs: int, steps: Steps) -> None:
        await settle(stream, await claim(server, stream, jobs, Steps()), steps)

    assert await run_more_often(frail, stage) == set()
    assert lossy.count("settle_completed") == 2 * MESSAGES
    assert lossy.count("settle_jobs") == 0


async def test_from_hints_to_the_claim_and_to_the_assignment(frail: RunningServer, lossy: LossyPostgres) -> None:
    async def stage(server: RunningServer, stream: RawStream, jobs: int, steps: Steps) -> None:
        await settle(stream, await claim(server, stream, jobs, steps), Steps())

    assert await run_more_often(frail, stage) == {TOKENS}
    assert lossy.count("claim_jobs") == 2 * MESSAGES


@pytest.mark.parametrize("jobs_are", SUBMITS)
async def test_from_a_submit_to_the_statement_and_to_the_answer(
    frail: RunningServer, lossy: LossyPostgres, jobs_are: str
) -> None:
    specs, others = SUBMITS[jobs_are]

    async def stage(server: RunningServer, _stream: RawStream, jobs: int, steps: Steps) -> None:
        given = specs(jobs)
        for job in given:
            # What waits for long is looked after, where a worker serves it.
            job.queue = "nobody"
        with steps:
            await submit(server, given)

    assert await run_more_often(frail, stage) == {ANSWER} | others
    assert lossy.count("submit_jobs") == 2 * MESSAGES


@pytest.mark.parametrize("jobs_are", SUBMITS)
async def test_from_a_submit_to_the_assignment_where_nothing_waits(
    frail: RunningServer, lossy: LossyPostgres, jobs_are: str
) -> None:
    specs, others = SUBMITS[jobs_are]

    async def stage(server: RunningServer, stream: RawStream, jobs: int, steps: Steps) -> None:
        await nothing_waits(server, jobs)
        given = specs(jobs)
        with steps:
            await submit(server, given)
            assigned = await take(stream, jobs)
        await settle(stream, assigned, Steps())

    found = await run_more_often(frail, stage, has_slots=True)

    assert found == {ANSWER} | others | (DUE if KINDS in others else set())
    assert lossy.count("submit_jobs") == 2 * MESSAGES
    assert lossy.count("claim_jobs") == 0


async def test_each_failure_is_decided_by_itself(frail: RunningServer) -> None:
    """Rare enough for Python; and it shows that what runs for one job in ten is seen."""

    async def stage(server: RunningServer, stream: RawStream, jobs: int, steps: Steps) -> None:
        assigned = await claim(server, stream, jobs, Steps())
        await settle(stream, assigned[::10], steps, ok=False, exit_code=1)
        await settle(stream, [job for at, job in enumerate(assigned) if at % 10], steps)

    assert await run_more_often(frail, stage) >= {"rpc/results.py::_report", "model/decision.py::decide"}
