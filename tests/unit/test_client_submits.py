"""Submits that travel together, and the stream of batches."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence

import pytest

from orqestra.client import Client, JobSpec, JobType, Patience, Receipt, RetryPolicy, shell_payload
from orqestra.client.encode import JobEncoder, request_of
from orqestra.model.errors import InvalidInput, Unavailable
from orqestra.v1 import jobs_pb2
from tests.support.scripted_server import GUILTY, Fault, ScriptedJobs, serve


def noop(name: str, *tags: str, key: bool = True) -> JobSpec:
    return JobSpec(type=JobType.NOOP, key=name if key else None, tags=(name, *tags))


async def batches(*sizes: int, key: bool = True) -> AsyncIterator[Sequence[JobSpec]]:
    for number, size in enumerate(sizes):
        yield [noop(f"{number}-{index}", key=key) for index in range(size)]


async def collect(receipts: AsyncIterator[Receipt]) -> dict[int, Receipt]:
    return {receipt.number: receipt async for receipt in receipts}


async def test_submits_that_wait_are_one_batch() -> None:
    jobs = ScriptedJobs()
    async with serve(jobs) as address, Client(address) as client:
        ids = await asyncio.gather(*(client.submit(noop(f"job-{n}")) for n in range(500)))
    assert sorted(ids) == list(range(1, 501))
    assert [jobs.stored[job_id - 1].idempotency_key for job_id in ids] == [f"job-{n}" for n in range(500)]
    assert jobs.calls == [500]


async def test_jobs_without_key_travel_apart() -> None:
    jobs = ScriptedJobs()
    specs = [noop(f"{n}", key=n % 2 == 0) for n in range(20)]
    async with serve(jobs) as address, Client(address) as client:
        await asyncio.gather(*(client.submit(spec) for spec in specs))
    assert jobs.calls == [10, 10]


async def test_only_the_guilty_submit_is_refused() -> None:
    jobs = ScriptedJobs()
    specs = [noop(f"{n}", *([GUILTY] if n == 37 else [])) for n in range(100)]
    async with serve(jobs) as address, Client(address) as client:
        answers = await asyncio.gather(*(client.submit(spec) for spec in specs), return_exceptions=True)
    assert [n for n, answer in enumerate(answers) if isinstance(answer, InvalidInput)] == [37]
    assert len(jobs.stored) == 99


async def test_a_submitter_that_gives_up_harms_no_other() -> None:
    jobs = ScriptedJobs()
    jobs.answer.clear()
    async with serve(jobs) as address, Client(address) as client:
        first = asyncio.create_task(client.submit(noop("first")))
        await jobs.called.wait()
        second, third = (asyncio.create_task(client.submit(noop(name))) for name in ("second", "third"))
        await asyncio.sleep(0)
        second.cancel()
        jobs.answer.set()
        assert [await first, await third] == [1, 2]


async def test_a_refused_batch_names_its_job() -> None:
    async with Client("127.0.0.1:1") as client:
        with pytest.raises(InvalidInput, match=r"jobs\[1\]\.priority: 10"):
            await client.submit_many([noop("a"), JobSpec(type=JobType.NOOP, priority=10)])
        with pytest.raises(InvalidInput, match="10001 jobs; at most 10000"):
            await client.submit_many([noop("a")] * 10_001)
        assert await client.submit_many([]) == ()


async def test_stream_answers_every_batch() -> None:
    jobs = ScriptedJobs()
    async with serve(jobs) as address, Client(address) as client:
        receipts = await collect(client.submit_stream(batches(*[3] * 50)))
    assert [receipts[number].ids for number in range(1, 51)] == [(3 * n + 1, 3 * n + 2, 3 * n + 3) for n in range(50)]


async def test_stream_goes_on_after_a_refused_batch() -> None:
    async def given() -> AsyncIterator[Sequence[JobSpec]]:
        yield [noop("a")]
        yield [noop("b", GUILTY)]
        yield [JobSpec(type="unknown")]
        yield [noop("c")]

    async with serve(ScriptedJobs()) as address, Client(address) as client:
        receipts = await collect(client.submit_stream(given()))
    assert [receipts[number].ids for number in (1, 4)] == [(1,), (2,)]
    assert [str(receipts[number].error) for number in (2, 3)] == [
        "tags: guilty",
        "type: 'unknown' is not known; allowed are shell, noop",
    ]


async def test_stream_that_breaks_is_taken_up_again() -> None:
    jobs = ScriptedJobs(faults=deque([Fault()]))
    async with serve(jobs) as address, Client(address) as client:
        receipts = await collect(client.submit_stream(batches(*[2] * 20)))
    assert len(receipts) == 20
    assert all(len(receipt.ids) == 2 for receipt in receipts.values())
    assert len(jobs.stored) == 40


async def test_broken_stream_does_not_repeat_jobs_without_key() -> None:
    jobs = ScriptedJobs(faults=deque([Fault()]))
    async with serve(jobs) as address, Client(address) as client:
        receipts = await collect(client.submit_stream(batches(1, key=False)))
    assert isinstance(receipts[1].error, Unavailable)
    assert not jobs.stored


async def test_empty_stream_ends() -> None:
    async with serve(ScriptedJobs()) as address, Client(address) as client:
        assert await collect(client.submit_stream(batches())) == {}


async def test_stream_gives_up_when_nobody_answers() -> None:
    patience = Patience(total_seconds=0.3)
    jobs = ScriptedJobs(faults=deque([Fault()] * 1000))
    async with serve(jobs) as address, Client(address, patience=patience) as client:
        with pytest.raises(Unavailable):
            await collect(client.submit_stream(batches(1)))


async def test_an_error_of_the_callers_batches_is_raised() -> None:
    async def given() -> AsyncIterator[Sequence[JobSpec]]:
        yield [noop("a")]
        raise LookupError("no more")

    async with serve(ScriptedJobs()) as address, Client(address) as client:
        with pytest.raises(LookupError, match="no more"):
            await collect(client.submit_stream(given()))


def test_a_job_says_everything_it_means() -> None:
    spec = JobSpec(
        payload=shell_payload(["echo", "hi"], env={"A": "b"}, cwd="/tmp", stdin="x"),
        requires=("gpu=yes", "zone=eu"),
        retries=RetryPolicy(max_retries=3),
        tags=("nightly",),
    )
    message = jobs_pb2.SubmitRequest.FromString(request_of(jobs_pb2.SubmitRequest, [JobEncoder().encode(spec)])).job
    assert message.payload == b'{"argv":["echo","hi"],"env":{"A":"b"},"cwd":"/tmp","stdin":"x"}'
    assert dict(message.labels) == {"gpu": "yes", "zone": "eu"}
    assert (message.max_retries, message.backoff.base_ms, message.grace_ms) == (3, 1000, 5000)


@pytest.mark.parametrize("field", ["tags", "key"])
def test_text_that_is_no_unicode_is_refused(field: str) -> None:
    spec = JobSpec(type=JobType.NOOP, key="\udcff") if field == "key" else noop("\udcff", key=False)
    with pytest.raises(InvalidInput, match="not valid UTF-8"):
        JobEncoder().encode(spec)
