"""Messages of 1000 jobs read and written in Rust, beside protobuf's own classes and a loop over its objects.

Both end with the same: the columns of a statement, or the bytes of a message.
"""

from collections.abc import Callable
from typing import Any, Final

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from orqestra._dispatch import Claimed, Owed, Successes, wire
from orqestra.v1 import jobs_pb2
from orqestra.v1 import worker_pb2 as pb

BATCH: Final = 1000
SESSION: Final = 7
TOKEN: Final = 2**62 + 1
FIRST_ID: Final = 1_000_000
MOST_BYTES: Final = 4 * 1024 * 1024
OUTPUT: Final = b"done\n"
IDS: Final = list(range(FIRST_ID, FIRST_ID + BATCH))
TWINS: Final = pytest.mark.parametrize("twin", ["rust", "python"])

CLAIM: Final[dict[str, list[Any] | None]] = {
    "session_ids": [SESSION] * BATCH,
    "ids": IDS,
    "fences": [1] * BATCH,
    "tokens": [TOKEN] * BATCH,
    "types": ["shell"] * BATCH,
    "payloads": [b'{"command": "true"}'] * BATCH,
    "attempts": [0] * BATCH,
    "timeouts_ms": [0] * BATCH,
    "graces_ms": [5000] * BATCH,
    "run_ids": None,
    "step_keys": None,
    "previous_ids": None,
}
# What a settlement asks of each result, by the column that it goes into.
COLUMNS: Final = {
    "stdouts": "stdout",
    "stderrs": "stderr",
    "wall_us": "wall_us",
    "user_us": "user_us",
    "system_us": "system_us",
    "max_rss_kb": "max_rss_kb",
}


def ref(job_id: int) -> pb.AttemptRef:
    return pb.AttemptRef(job_id=job_id, fence=1, token=TOKEN)


def result(job_id: int) -> pb.Result:
    return pb.Result(
        attempt=ref(job_id),
        ok=True,
        reason="exited",
        exit_code=0,
        stdout=OUTPUT,
        stdout_bytes=len(OUTPUT),
        started_at_us=1_700_000_000_000_000,
        wall_us=1500,
        user_us=700,
        system_us=600,
        max_rss_kb=3000,
    )


RESULTS: Final = pb.WorkerMessage(results=pb.Results(results=map(result, IDS))).SerializeToString()
SUBMIT: Final = jobs_pb2.SubmitBatchRequest(
    jobs=[jobs_pb2.JobSpec(type="shell", payload=b'{"command": "true"}')] * BATCH
).SerializeToString()
SUBMITTED_FIELD: Final = jobs_pb2.SubmitBatchRequest.DESCRIPTOR.fields_by_name["jobs"].number
ACKS: Final = [pb.ResultAcks.Ack(attempt=ref(job_id), verdict=pb.ResultAcks.VERDICT_ACCEPTED) for job_id in IDS]
ACKNOWLEDGED: Final = pb.ServerMessage(result_acks=pb.ResultAcks(acks=ACKS)).SerializeToString()


@TWINS
@pytest.mark.benchmark(group="wire: 1000 jobs of a submit")
def test_submitted(benchmark: BenchmarkFixture, twin: str) -> None:
    run(benchmark, {"rust": submitted_rust, "python": submitted_python}[twin], BATCH)


@TWINS
@pytest.mark.benchmark(group="wire: Assign of 1000 claimed jobs")
def test_assign(benchmark: BenchmarkFixture, twin: str) -> None:
    run(benchmark, {"rust": assign_rust, "python": assign_python}[twin], assign_python())


@TWINS
@pytest.mark.benchmark(group="wire: 1000 results to columns")
def test_results(benchmark: BenchmarkFixture, twin: str) -> None:
    run(benchmark, {"rust": results_rust, "python": results_python}[twin], IDS)


@TWINS
@pytest.mark.benchmark(group="wire: 1000 results settled, to answers")
def test_answers(benchmark: BenchmarkFixture, twin: str) -> None:
    run(benchmark, {"rust": answers_rust(), "python": answers_python}[twin], ACKNOWLEDGED)


@TWINS
@pytest.mark.benchmark(group="wire: 1000 results owed, sent and acknowledged")
def test_owed(benchmark: BenchmarkFixture, twin: str) -> None:
    run(benchmark, {"rust": owed_rust, "python": owed_python}[twin], 0)


def run(benchmark: BenchmarkFixture, work: Callable[[], object], expected: object) -> None:
    benchmark.extra_info["jobs"] = BATCH
    assert benchmark(work) == expected


def submitted_rust() -> int:
    jobs = wire.jobs(SUBMIT, SUBMITTED_FIELD)
    assert len(jobs.shapes) == 1
    return len(jobs.payloads)


def submitted_python() -> int:
    """Read what a statement needs of each job."""
    jobs = jobs_pb2.SubmitBatchRequest.FromString(SUBMIT).jobs
    columns = [
        (
            job.queue,
            job.priority,
            job.type,
            job.max_retries,
            job.delay_ms,
            job.timeout_ms,
            job.idempotency_key,
            job.tags,
        )
        for job in jobs
    ]
    assert len(columns) == BATCH
    return len([job.payload for job in jobs])


def assign_rust() -> bytes:
    [encoded] = Claimed(CLAIM).encode(SESSION, {}, BATCH, MOST_BYTES)
    return wire.assign(1, encoded)


def assign_python() -> bytes:
    names = ("ids", "fences", "tokens", "types", "payloads", "attempts", "graces_ms")
    rows = zip(*(CLAIM[name] or () for name in names), strict=True)
    jobs = [
        pb.Assignment(
            attempt=pb.AttemptRef(job_id=job_id, fence=fence, token=token),
            type=kind,
            payload=payload,
            attempt_number=attempt + 1,
            grace_ms=grace_ms,
        )
        for job_id, fence, token, kind, payload, attempt, grace_ms in rows
    ]
    return pb.ServerMessage(assign=pb.Assign(number=1, jobs=jobs)).SerializeToString()


def results_rust() -> list[int]:
    ids: list[int] = Successes(wire.results(SESSION, RESULTS) or []).columns()["ids"]
    return ids


def results_python() -> list[int]:
    results = pb.WorkerMessage.FromString(RESULTS).results.results
    plain = [each for each in results if each.ok and each.exit_code == 0 and not each.killed_processes]
    columns = {column: [getattr(each, name) for each in plain] for column, name in COLUMNS.items()}
    assert len(columns) == len(COLUMNS)
    attempts = [(each.attempt.job_id, each.attempt.fence, each.attempt.token) for each in plain]
    return [job_id for job_id, _, _ in attempts]


def answers_rust() -> Callable[[], bytes]:
    successes = Successes(wire.results(SESSION, RESULTS) or [])

    def answers() -> bytes:
        parts, _ = successes.settle(IDS)
        return wire.result_acks([part for _, part in parts])

    return answers


def answers_python() -> bytes:
    done = set(IDS)
    acks = [
        pb.ResultAcks.Ack(attempt=ref(job_id), verdict=pb.ResultAcks.VERDICT_ACCEPTED)
        for job_id in IDS
        if job_id in done
    ]
    return pb.ServerMessage(result_acks=pb.ResultAcks(acks=acks)).SerializeToString()


def owed_rust() -> int:
    owed = Owed()
    for job_id in IDS:
        owed.add((job_id, 1, TOKEN), ENCODED[job_id])
    assert owed.take(BATCH, MOST_BYTES) is not None
    owed.acknowledge(ACKNOWLEDGED)
    return len(owed)


def owed_python() -> int:
    owed = {(job_id, 1, TOKEN): ENCODED[job_id] for job_id in IDS}
    results = pb.Results(results=[pb.Result.FromString(each) for each in owed.values()])
    assert pb.WorkerMessage(results=results).SerializeToString()
    for ack in pb.ServerMessage.FromString(ACKNOWLEDGED).result_acks.acks:
        del owed[ack.attempt.job_id, ack.attempt.fence, ack.attempt.token]
    return len(owed)


ENCODED: Final = {job_id: result(job_id).SerializeToString() for job_id in IDS}
