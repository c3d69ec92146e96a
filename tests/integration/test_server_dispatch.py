"""Who gets which job, how many at once, and when."""

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest
from redis.asyncio import Redis

from orqestra.v1 import jobs_pb2
from orqestra.v1.worker_pb2 import Assignment, AttemptRef, HeldAttempt, Results
from tests.support.raw_worker import RawStream, Verdict, good, held
from tests.support.server import RunningServer, Sql, noop

# Fast finishes may be followed by twice as many jobs ahead as were finished in the last 80 ms (the matcher's prefetch).
SLOW_SECONDS = 0.15
DUE_WITHIN_MS = 100.0
JOBS = 100


async def one_by_one(stream: RawStream, count: int) -> list[Assignment]:
    """Take jobs and finish them one after the other; return the first `count` in the order they came."""
    jobs: list[Assignment] = []
    for at in range(count):
        while len(jobs) <= at:
            jobs += (await stream.next("assign")).jobs
        await stream.finish([jobs[at]])
    return jobs[:count]


async def test_a_worker_never_has_more_than_its_slots_and_what_it_just_finished(server: RunningServer) -> None:
    total, slots = 400, 7
    await server.submit_many(total)
    loop = asyncio.get_running_loop()
    async with server.worker(slots=slots) as worker:
        stream = await worker.open()
        waiting: list[Assignment] = []
        finished_at: list[float] = []
        worst = 0
        while len(finished_at) < total:
            while not waiting or stream.has("assign"):
                waiting += (await stream.next("assign")).jobs
            # What the server may have seen finish shortly before it sent this, with room for a slow machine.
            recent = sum(loop.time() - at < 0.2 for at in finished_at)
            worst = max(worst, len(waiting) - slots - 2 * recent)
            done, waiting = waiting[:3], waiting[3:]
            finished_at += [loop.time()] * len(done)
            await stream.send(results=Results(results=[good(job.attempt) for job in done]))

    assert worst <= 0


async def test_a_busy_worker_gets_nothing_more(server: RunningServer) -> None:
    await server.submit_many(10)
    async with server.worker(slots=3) as worker:
        stream = await worker.open()
        jobs = await stream.assigned(3)
        await stream.none("assign", 0.3)
        await asyncio.sleep(SLOW_SECONDS)

        await stream.finish(jobs[:1])

        # One slot is free, and two jobs more may be sent ahead for the one just finished.
        assert 1 <= len((await stream.next("assign")).jobs) <= 3


async def test_results_of_jobs_that_it_did_not_run_make_no_room(server: RunningServer) -> None:
    await server.submit_many(10)
    async with server.worker() as worker:
        stream = await worker.open()
        [job] = await stream.assigned(1)
        bogus = AttemptRef(job_id=job.attempt.job_id, fence=1, token=job.attempt.token ^ 1)
        for _ in range(5):
            assert await stream.report([good(bogus)]) == [Verdict.VERDICT_STALE]
            await asyncio.sleep(SLOW_SECONDS)

        assert not stream.has("assign")


async def test_results_from_before_a_reconnect_make_no_room(server: RunningServer) -> None:
    ids = await server.submit_many(10)
    async with server.worker(slots=5) as worker:
        stream = await worker.open()
        running, *finished = await stream.assigned(5)
        second = await worker.open(
            slots=1, held=[held(running), *(held(job, HeldAttempt.PHASE_FINISHED) for job in finished)]
        )
        for job in finished[:2]:
            await second.finish([job])
            await second.none("assign", SLOW_SECONDS)

        # The last ones may have some sent ahead, as any that are just finished.
        await second.finish([*finished[2:], running])
        assert ids[5] in [job.attempt.job_id for job in (await second.next("assign")).jobs]


@pytest.mark.alone
async def test_an_end_is_no_reason_to_ask_redis_of_lanes_that_are_empty(server: RunningServer, redis_url: str) -> None:
    loop = asyncio.get_running_loop()
    async with Redis.from_url(redis_url) as redis, server.worker(slots=2) as worker:
        stream = await worker.open()
        await server.submit()
        await stream.finish(await stream.assigned(1))
        began, before = loop.time(), await scripts_run(redis)

        for _ in range(JOBS):
            await server.submit()
            await stream.finish(await stream.assigned(1))

        # Each second all lanes are looked at; other parts have scripts of their own for each second.
        assert await scripts_run(redis) - before < JOBS / 2 + 10 * (loop.time() - began)


async def scripts_run(redis: Redis) -> int:
    """Return how many scripts this Redis has run."""
    found = (await redis.info("commandstats")).get("cmdstat_evalsha", {"calls": 0})
    return int(found["calls"])


async def test_a_draining_worker_gets_nothing_until_it_has_slots_again(server: RunningServer) -> None:
    async with server.worker(slots=0) as draining, server.worker(slots=2) as other:
        stream = await draining.open()
        await server.submit_many(3)
        [listed] = (await server.jobs.ListWorkers(jobs_pb2.ListWorkersRequest())).workers
        assert listed.draining
        await stream.none("assign", 0.3)

        later = await other.open()
        jobs = await later.assigned(2)
        await later.beat(0)
        await asyncio.sleep(SLOW_SECONDS)
        await later.finish(jobs)
        await later.none("assign", 0.3)

        await stream.beat(1)
        await stream.finish(await stream.assigned(1))


async def test_the_best_priority_goes_first_and_the_oldest_of_equals(server: RunningServer) -> None:
    order = [(await server.submit(priority=priority), priority) for priority in (0, 9, 4, 9, 4, 0, 7)]
    async with server.worker() as worker:
        jobs = await one_by_one(await worker.open(), len(order))

    expected = [job_id for job_id, _ in sorted(order, key=lambda each: (-each[1], each[0]))]
    assert [job.attempt.job_id for job in jobs] == expected


@pytest.mark.parametrize("waits", [True, False], ids=["waiting", "matched directly"])
async def test_what_is_sent_together_is_sent_best_first(server: RunningServer, *, waits: bool) -> None:
    async def submit() -> list[int]:
        specs = [noop(priority=priority) for priority in (0, 9, 4, 9)]
        return list((await server.jobs.SubmitBatch(jobs_pb2.SubmitBatchRequest(jobs=specs))).ids)

    ids = await submit() if waits else []
    async with server.worker(slots=6) as worker:
        stream = await worker.open()
        ids = ids or await submit()
        jobs = await stream.assigned(4)

    assert [job.attempt.job_id for job in jobs] == [ids[at] for at in (1, 3, 2, 0)]


async def test_the_best_priority_of_a_queue_goes_first_across_labels(server: RunningServer) -> None:
    low = await server.submit(priority=1)
    high = await server.submit(priority=8, labels={"gpu": "yes"})
    async with server.worker(labels={"gpu": "yes"}) as worker:
        jobs = await one_by_one(await worker.open(), 2)

    assert [job.attempt.job_id for job in jobs] == [high, low]


async def test_two_queues_take_turns_whatever_the_priorities(server: RunningServer) -> None:
    for queue, priority in (("full", 9), ("small", 0)):
        await server.submit_many(20, queue=queue, priority=priority)
    async with server.worker(queues=["full", "small"]) as worker:
        jobs = await one_by_one(await worker.open(), 10)
        queues = Counter([(await server.job(job.attempt.job_id)).queue for job in jobs])

    assert set(queues.values()) <= {4, 5, 6}


async def test_a_flood_in_one_queue_does_not_starve_another(server: RunningServer) -> None:
    await server.submit_many(5000, queue="flood")
    async with server.worker(slots=4, queues=["flood", "calm"]) as worker:
        stream = await worker.open()
        calm = await server.submit(queue="calm")
        seen = 0
        while True:
            jobs = (await stream.next("assign")).jobs
            seen += len(jobs)
            if calm in [job.attempt.job_id for job in jobs]:
                break
            await stream.send(results=Results(results=[good(job.attempt) for job in jobs]))

    assert seen < 2000


async def test_jobs_go_only_to_workers_with_all_their_labels_and_their_queue(server: RunningServer) -> None:
    wanted = {
        "plain": await server.submit(),
        "gpu": await server.submit(labels={"gpu": "a"}),
        "both": await server.submit(labels={"gpu": "a", "zone": "x"}),
        "other value": await server.submit(labels={"gpu": "b"}),
        "other queue": await server.submit(queue="other"),
    }
    async with server.worker(slots=10) as bare, server.worker(slots=10, labels={"gpu": "a"}) as some:
        some_stream = await some.open()
        got = {job.attempt.job_id for job in await some_stream.assigned(2)}
        bare_stream = await bare.open()
        await bare_stream.none("assign", 0.3)

        assert got == {wanted["plain"], wanted["gpu"]}
        async with server.worker(slots=10, labels={"gpu": "a", "zone": "x", "more": ""}) as all_labels:
            [job] = await (await all_labels.open()).assigned(1)
            assert job.attempt.job_id == wanted["both"]


async def test_jobs_spread_over_workers(server: RunningServer) -> None:
    async with server.worker(slots=4) as one, server.worker(slots=4) as two:
        streams = [await one.open(), await two.open()]
        await server.submit_many(4)
        counts = []
        for stream in streams:
            counts.append(len((await stream.next("assign")).jobs))

    assert counts == [2, 2]


async def test_large_payloads_are_sent_in_bounded_messages(server: RunningServer) -> None:
    payload = b'"' + b"x" * 1_000_000 + b'"'
    await server.submit_many(12, payload=payload)
    async with server.worker(slots=12) as worker:
        stream = await worker.open()
        sizes: list[int] = []
        while sum(sizes) < 12:
            sizes.append(len((await stream.next("assign")).jobs))

    assert max(sizes) <= 5


@pytest.mark.alone
async def test_delayed_jobs_start_at_their_time_and_soon_after(
    server: RunningServer, sql: Sql, record_property: Callable[[str, object], None]
) -> None:
    async with server.worker(slots=50) as worker:
        stream = await worker.open()
        await server.submit()  # the first job makes its lane
        await stream.finish(await stream.assigned(1))
        for number in range(50):
            await server.submit(delay_ms=300 + 7 * number)
        started = 0
        while started < 50:
            jobs = (await stream.next("assign")).jobs
            started += len(jobs)

    rows = await sql.fetch(
        "SELECT extract(epoch FROM started_at - available_at) * 1000 AS late FROM jobs WHERE state = 'running'"
    )
    late = sorted(float(row["late"]) for row in rows)
    record_property("late_ms_p50", late[25])
    record_property("late_ms_p99", late[-1])
    print(f"late by p50 {late[25]:.1f} ms, p99 {late[-1]:.1f} ms")
    assert len(late) == 50
    assert late[0] >= 0
    assert late[-1] < DUE_WITHIN_MS


@pytest.mark.alone
async def test_a_retry_starts_at_its_time_too(server: RunningServer) -> None:
    job_id = await server.submit(max_retries=1, backoff=jobs_pb2.Backoff(base_ms=200, factor=1))
    async with server.worker() as worker:
        stream = await worker.open()
        await stream.finish(await stream.assigned(1), ok=False)
        due = (await server.job(job_id)).available_at
        [again] = await stream.assigned(1)
    job = await server.job(job_id)

    late = job.started_at.ToNanoseconds() - due.ToNanoseconds()
    assert 0 <= late < DUE_WITHIN_MS * 1e6
    assert again.attempt_number == 2


@pytest.mark.parametrize("sooner_ms", [50, 0])
async def test_a_job_that_is_due_sooner_is_not_held_up_by_one_due_later(server: RunningServer, sooner_ms: int) -> None:
    async with server.worker(slots=2) as worker:
        stream = await worker.open()
        await server.submit(delay_ms=60_000)
        sooner = await server.submit(delay_ms=sooner_ms)

        [job] = await stream.assigned(1, 0.8)

        assert job.attempt.job_id == sooner
