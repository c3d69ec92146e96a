"""The stream of a worker: who may open one, who replaces whom, what ends it."""

import asyncio
from typing import Any
from uuid import uuid4

import grpc
import pytest

from orqestra.rpc import incoming
from orqestra.v1 import jobs_pb2
from orqestra.v1.jobs_pb2 import STREAM_STDOUT
from orqestra.v1.worker_pb2 import AssignAck, AttemptRef, Beat, Result, Results, StoreOutput, WorkerMessage
from tests.support.raw_worker import RawStream, Verdict, held
from tests.support.server import RunningServer, Sql

REPLACED_SECONDS = 1.5
UNACKNOWLEDGED_SECONDS = (1.9, 3.0)


async def check_still_works(server: RunningServer) -> None:
    """A worker of its own runs a job of its own."""
    async with server.worker(queues=["check"]) as worker:
        stream = await worker.open()
        job_id = await server.submit(queue="check")
        assert await stream.finish(await stream.assigned(1)) == [Verdict.VERDICT_ACCEPTED]
        assert (await server.job(job_id)).status == jobs_pb2.STATUS_COMPLETED


async def check_refused(stream: RawStream, word: str) -> None:
    code, message = await stream.end(3.0)
    assert code is grpc.StatusCode.INVALID_ARGUMENT, message
    assert word in message
    assert "Traceback" not in message


# Hello

BAD_HELLOS: list[tuple[dict[str, Any], str]] = [
    ({"protocol": 0}, "hello.protocol"),
    ({"protocol": 2}, "hello.protocol"),
    ({"worker_id": ""}, "hello.worker_id"),
    ({"worker_id": "me"}, "hello.worker_id"),
    ({"incarnation": "a\0"}, "hello.incarnation"),
    ({"number": 0}, "hello.number"),
    ({"number": -1}, "hello.number"),
    ({"number": 2**63 - 1}, "hello.number"),
    ({"slots": -1}, "hello.slots"),
    ({"slots": 10_001}, "hello.slots"),
    ({"queues": []}, "hello.queues"),
    ({"queues": ["a", "b c"]}, "hello.queues"),
    ({"queues": ["x\0"]}, "hello.queues"),
    ({"queues": [f"q{n}" for n in range(65)]}, "hello.queues"),
    ({"labels": {"a": "b\0"}}, "hello.labels"),
    ({"labels": {f"l{n}": "" for n in range(33)}}, "hello.labels"),
    ({"name": ""}, "hello.name"),
    ({"name": "a\nb"}, "hello.name"),
    ({"name": "x" * 129}, "hello.name"),
]


async def test_a_bad_hello_is_refused_by_its_field(server: RunningServer, sql: Sql) -> None:
    async with server.worker() as worker:
        for about, field in BAD_HELLOS:
            stream = await worker.dial()
            await stream.send(hello=worker.hello(**about))
            await check_refused(stream, field)

    assert await sql.fetchval("SELECT count(*) FROM sessions") == 0


@pytest.mark.parametrize(
    "message",
    [{"beat": Beat(seq=1, slots=1)}, {"results": Results(results=[Result(reason="exited")])}, {}],
    ids=["beat", "results", "nothing"],
)
async def test_the_first_message_must_be_hello(server: RunningServer, message: dict[str, Any]) -> None:
    async with server.worker() as worker:
        stream = await worker.dial()
        await stream.send(**message)

        await check_refused(stream, "Hello")
    await check_still_works(server)


async def test_welcome_tells_the_session_and_its_lease(server: RunningServer, sql: Sql) -> None:
    async with server.worker(slots=3, queues=["a", "b"], labels={"k": "v"}, name="me") as worker:
        stream = await worker.open()
        [listed] = (await server.jobs.ListWorkers(jobs_pb2.ListWorkersRequest())).workers

        assert stream.order[0] == "welcome"
        assert (stream.welcome.protocol, stream.welcome.lease_ms) == (1, 3000)
        assert list(stream.welcome.revoke) == []
        assert listed.session_id == stream.welcome.session_id
        assert (listed.id, listed.name, listed.slots) == (worker.about["worker_id"], "me", 3)
        assert (list(listed.queues), dict(listed.labels)) == (["a", "b"], {"k": "v"})
        assert not listed.draining
        await stream.hang_up()

    # Nothing ran on it: there is no lease to wait for.
    assert list((await server.jobs.ListWorkers(jobs_pb2.ListWorkersRequest())).workers) == []
    assert await sql.fetchval("SELECT closed_reason FROM sessions") == "ended"


# Replacing


@pytest.mark.parametrize("number", [6, 7])
async def test_an_older_or_the_same_number_is_refused_and_the_stream_goes_on(
    server: RunningServer, number: int
) -> None:
    async with server.worker() as worker:
        first = await worker.open(7)
        second = await worker.dial()
        await second.send(hello=worker.hello(number))

        code, message = await second.end()
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert f"number {number}" in message
        await server.submit()
        assert await first.finish(await first.assigned(1)) == [Verdict.VERDICT_ACCEPTED]


async def test_a_newer_stream_replaces_the_older_and_takes_its_jobs_along(server: RunningServer) -> None:
    ids = await server.submit_many(2)
    async with server.worker(slots=2) as worker, server.worker() as other:
        first = await worker.open()
        running, lost_on_the_way = await first.assigned(2)
        idle = await other.open()

        second = await worker.open(held=[held(running)])

        assert (await first.next("goodbye")).reason
        assert (await first.end(REPLACED_SECONDS))[0] is grpc.StatusCode.OK
        assert list(second.welcome.revoke) == []
        # What it does not hold goes back at once and runs elsewhere, or on this worker's free slot.
        elsewhere = asyncio.create_task(idle.next("assign", REPLACED_SECONDS))
        here = asyncio.create_task(second.next("assign", REPLACED_SECONDS))
        await asyncio.wait([elsewhere, here], return_when=asyncio.FIRST_COMPLETED)
        stream, assigned = (idle, elsewhere) if elsewhere.done() else (second, here)
        assert [job.attempt.job_id for job in assigned.result().jobs] == [lost_on_the_way.attempt.job_id]
        assert assigned.result().jobs[0].attempt.fence == 2
        assert await stream.finish(assigned.result().jobs) == [Verdict.VERDICT_ACCEPTED]
        # What it holds is still its own, under the same fence.
        assert await second.finish([running]) == [Verdict.VERDICT_ACCEPTED]
        for each in (elsewhere, here):
            each.cancel()
        await asyncio.wait([elsewhere, here])
    jobs = [await server.job(job_id) for job_id in ids]
    assert [job.status for job in jobs] == [jobs_pb2.STATUS_COMPLETED] * 2
    assert sorted((job.fence, job.returned, job.lost, job.attempt) for job in jobs) == [(1, 0, 0, 1), (2, 0, 0, 1)]


async def test_what_a_new_incarnation_does_not_hold_was_lost(server: RunningServer) -> None:
    job_id = await server.submit()
    async with server.worker() as worker:
        first = await worker.open()
        await first.assigned(1)

        second = await worker.open(incarnation=str(uuid4()))
        [again] = await second.assigned(1, REPLACED_SECONDS)

        assert (again.attempt.fence, again.attempt_number) == (2, 1)
        await second.finish([again])
    job = await server.job(job_id)
    assert (job.lost, job.attempt, job.status) == (1, 1, jobs_pb2.STATUS_COMPLETED)
    assert [(each.outcome, each.number) for each in job.attempts] == [("lost", 0), ("completed", 1)]


async def test_what_is_held_but_no_longer_the_workers_is_revoked(server: RunningServer) -> None:
    await server.submit()
    async with server.worker() as worker:
        first = await worker.open()
        [job] = await first.assigned(1)
        await first.finish([job])
        strange = AttemptRef(job_id=4711, fence=1, token=1)

        second = await worker.open(held=[held(job), {"attempt": strange, "phase": 2}])

        assert list(second.welcome.revoke) == [job.attempt, strange]


async def test_nobody_can_take_over_the_jobs_of_another_worker(server: RunningServer) -> None:
    await server.submit()
    async with server.worker() as worker, server.worker() as thief:
        stream = await worker.open()
        [job] = await stream.assigned(1)

        stolen = await thief.open(held=[held(job)])

        assert list(stolen.welcome.revoke) == [job.attempt]
        await stolen.send(results=Results(results=[Result(attempt=job.attempt, ok=True, reason="exited")]))
        assert await stream.finish([job], stdout=b"mine") == [Verdict.VERDICT_ACCEPTED]
    assert (await server.job(job.attempt.job_id)).stdout == b"mine"


# Silence


@pytest.mark.alone
async def test_a_stream_that_does_not_acknowledge_is_ended_and_its_job_runs_elsewhere(server: RunningServer) -> None:
    job_id = await server.submit()
    loop = asyncio.get_running_loop()
    async with server.worker() as deaf, server.worker() as other:
        stream = await deaf.dial(acknowledge=False)
        await stream.send(hello=deaf.hello())
        await stream.assigned(1)
        begin = loop.time()
        idle = await other.open()

        assert "acknowledged" in (await stream.next("goodbye")).reason
        await stream.end()
        assert UNACKNOWLEDGED_SECONDS[0] < loop.time() - begin < UNACKNOWLEDGED_SECONDS[1]
        # Nothing is taken back by time: only its next Hello, or the end of its lease, gives the job back.
        await deaf.open(slots=0)
        await idle.finish(await idle.assigned(1, REPLACED_SECONDS))
    job = await server.job(job_id)
    assert (job.status, job.attempt, job.fence) == (jobs_pb2.STATUS_COMPLETED, 1, 2)
    assert [each.outcome for each in job.attempts] == ["returned", "completed"]


async def test_the_jobs_of_a_worker_that_is_gone_run_elsewhere_after_its_lease(server: RunningServer) -> None:
    job_id = await server.submit()
    async with server.worker() as gone, server.worker() as other:
        stream = await gone.open()
        await stream.assigned(1)
        await stream.break_off()
        idle = await other.open()
        for _ in range(8):
            await idle.beat(1)
            await idle.next("beat_ack")
            if "assign" in idle.order:
                break
        await idle.finish(await idle.assigned(1, 1.0))
    job = await server.job(job_id)
    assert [each.outcome for each in job.attempts] == ["lost", "completed"]


async def test_a_beat_is_answered_only_after_the_lease_was_renewed(server: RunningServer, sql: Sql) -> None:
    async with server.worker() as worker:
        stream = await worker.open()
        async with sql.transaction():
            await sql.execute("LOCK TABLE sessions IN SHARE MODE")
            before = await sql.fetchval("SELECT lease_expires_at FROM sessions")
            seq = await stream.beat(1)
            await stream.none("beat_ack", 1.2)

        ack = await stream.next("beat_ack")
        while ack.seq < seq:
            ack = await stream.next("beat_ack")
        after = await sql.fetchval("SELECT lease_expires_at FROM sessions")
        assert ack.seq == seq
        assert after > before
        now_ms = await sql.fetchval("SELECT extract(epoch FROM clock_timestamp()) * 1000")
        assert abs(float(now_ms) - ack.server_time_ms) < 5000


# Nonsense

NONSENSE: list[tuple[bytes | dict[str, Any], str]] = [
    (b"", "message"),
    (b"\xfa\x7f\x00", "message"),
    (b"\xff\xff\xff", "message"),
    ({"hello": {"protocol": 1}}, "hello"),
    ({"assign_ack": AssignAck(up_to=1)}, "assign_ack.up_to"),
    ({"assign_ack": AssignAck(up_to=2**64 - 1)}, "assign_ack.up_to"),
    ({"beat": Beat(seq=1, slots=-1)}, "beat.slots"),
    ({"beat": Beat(seq=1, slots=10_001)}, "beat.slots"),
    ({"store_output": StoreOutput(stream=3, offset=0, data=b"x")}, "store_output.stream"),  # type: ignore[arg-type]  # no such stream
    ({"store_output": StoreOutput(stream=STREAM_STDOUT, offset=-1, data=b"x")}, "store_output.offset"),
    ({"store_output": StoreOutput(stream=STREAM_STDOUT, offset=0, data=b"x" * 65537)}, "store_output.data"),
    ({"store_output": StoreOutput(stream=STREAM_STDOUT, offset=0, data=b"")}, "store_output.data"),
    (WorkerMessage(assign_nack={"reason": "x"}).SerializeToString()[:-1] + b"\xff", "assign_nack.reason"),
]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("message", "word"), NONSENSE, ids=[str(each)[:40] for each, _ in NONSENSE])
async def test_nonsense_ends_its_stream_and_nothing_else(
    module_server: RunningServer, message: bytes | dict[str, Any], word: str
) -> None:
    async with module_server.worker(queues=["mine"]) as worker:
        stream = await worker.open()
        if isinstance(message, bytes):
            await stream.send(message)
        else:
            await stream.send(**message)

        await check_refused(stream, word)
        await check_still_works(module_server)


async def test_a_stream_without_a_word_is_ended(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "HELLO_SECONDS", 0.2)
    async with server.worker() as worker:
        stream = await worker.dial()

        await check_refused(stream, "hello")


async def test_a_name_that_is_too_strange_to_print_is_no_worker(server: RunningServer) -> None:
    async with server.worker() as worker:
        stream = await worker.dial()
        hello = worker.hello(name="name").SerializeToString().replace(b"name", b"\xff\xfe\xfd\xfc")
        await stream.send(b"\x0a" + bytes([len(hello)]) + hello)

        await check_refused(stream, "hello.name")
        await check_still_works(server)
