"""Processes are killed and restarted under load: nothing acknowledged is lost, nothing ends twice.

Every start of a command is in the journal. More than one for a job is allowed only where its worker was
killed while its commands ran: they end with it.
"""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from orqestra.client import Client, Job, Patience
from orqestra.model.lifecycle import State
from orqestra.model.report import Reason
from orqestra.model.retry import RetryPolicy
from tests.support.fifo import Fifo
from tests.support.second_server import LABEL, second_server
from tests.support.system import System, running_system, shell
from tests.support.waiting import until

WORKERS = 2
SLOTS = 4
LEASE_SECONDS = 3
# A server that is asked to stop has so long.
SERVER_STOP_SECONDS = 5.0
RESTARTS = 3
PATIENCE_SECONDS = 3.0
WORK = "sleep 0.1"
# Too much to travel within a result.
OUTPUT_BYTES = 100_000


@pytest.fixture
async def system() -> AsyncIterator[System]:
    """A system that knows a lost worker soon."""
    settings = {"ORQESTRA_LEASE_SECONDS": str(LEASE_SECONDS)}
    async with running_system(workers=WORKERS, slots=SLOTS, settings=settings) as running:
        yield running


@pytest.mark.alone
async def test_a_follower_of_a_silent_job_outlives_a_restart(system: System) -> None:
    patience = Patience(total_seconds=PATIENCE_SECONDS)
    async with Client(system.stack.grpc_addr, patience=patience) as client:
        with Fifo(system.folder / "go") as go:
            # given a job that has said nothing for longer than a client is patient
            job_id = await system.submit(f"read _ < {go}; echo hi")
            following = asyncio.create_task(_output(client, job_id))
            await system.running(job_id)
            await asyncio.sleep(PATIENCE_SECONDS + 0.2)  # the silence is what this is about

            # when the server dies and comes back
            system.stack.kill_server()
            await system.stack.server.child.wait()
            await system.stack.start_server()
            go.release()

            # then the follower still gets what comes
            assert await following == b"hi\n"


async def test_jobs_of_a_killed_worker_run_again_elsewhere(system: System) -> None:
    # given jobs that both workers run
    jobs = [shell(system.journal.command(WORK)) for _ in range(100)]
    ids = await system.client.submit_many(jobs)
    await system.journal.started(25)

    # when one of them dies, and does not come back
    system.stack.kill_worker(0, with_commands=True)
    ended = await system.all_ended(ids)

    # then all jobs are completed once, and only those that it lost were started again
    assert {job.status for job in ended} == {State.COMPLETED}
    assert {_outcomes(job)["completed"] for job in ended} == {1}
    lost = [job for job in ended if job.lost]
    assert lost
    assert {job.worker for job in lost} == {"worker-2"}
    assert {job.attempt for job in lost} == {1}
    starts = system.journal.starts()
    assert all(1 <= starts[job.id] <= 1 + job.lost for job in ended)
    assert max(job.lost for job in ended) == 1


async def test_commands_outlive_a_killed_server(system: System) -> None:
    # given twice as many commands as there are slots
    with Fifo(system.folder / "go") as go:
        jobs = [shell(system.journal.command(f"read _ < {go}; echo done")) for _ in range(2 * WORKERS * SLOTS)]
        ids = await system.client.submit_many(jobs)
        await system.journal.started(WORKERS * SLOTS)

        # when the server is killed, some commands end while it is away, and it comes back
        system.stack.kill_server()
        await system.stack.server.child.wait()
        for _ in range(SLOTS):
            go.release()
        await until(lambda: system.journal.ends().total() == SLOTS)
        await system.stack.start_server()
        for _ in range(len(ids) - SLOTS):
            go.release()
        ended = await system.all_ended(ids)

    # then all results are accepted, of commands that were started once
    assert {(job.status, job.output.stdout) for job in ended} == {(State.COMPLETED, b"done\n")}
    assert system.journal.starts() == dict.fromkeys(ids, 1)
    assert system.journal.ends() == dict.fromkeys(ids, 1)
    assert {job.lost for job in ended} == {0}


async def test_results_outlive_their_worker(system: System) -> None:
    # given commands, one of them with much output, that end while the server is away
    with Fifo(system.folder / "go") as go:
        large = system.journal.command(f"read _ < {go}; yes | head -c {OUTPUT_BYTES}")
        failing = system.journal.command(f"read _ < {go}; echo short") + "; exit 3"
        jobs = [shell(large), shell(failing, retries=RetryPolicy(max_retries=0))]
        ids = await system.client.submit_many(jobs)
        await system.journal.started(len(ids))
        system.stack.kill_server()
        await system.stack.server.child.wait()
        for _ in ids:
            go.release()
        await until(lambda: system.journal.ends().total() == len(ids))
        await until(lambda: b"short\n" in _spooled(system) and len(_spooled(system)) > OUTPUT_BYTES)

    # when the workers are killed, and then all is started again
    for index in range(WORKERS):
        system.stack.kill_worker(index)
        await system.stack.worker(index).child.wait()
        system.stack.worker(index).start()
    await system.stack.start_server()
    completed, failed = await system.all_ended(ids)

    # then what the commands did is told, and they were started once
    assert system.journal.starts() == dict.fromkeys(ids, 1)
    assert (completed.status, failed.status, failed.exit_code) == (State.COMPLETED, State.FAILED, 3)
    assert (completed.output.stdout, failed.output.stdout) == (b"y\n" * (OUTPUT_BYTES // 2), b"short\n")
    assert {(job.attempt, job.lost) for job in (completed, failed)} == {(1, 0)}
    await until(lambda: _spooled(system) == b"")


async def test_a_rolling_restart_fails_no_submit(system: System) -> None:
    # given clients that submit all the time
    stopping = asyncio.Event()

    async def submit_on() -> list[int]:
        ids = []
        while not stopping.is_set():
            ids.append(await system.submit(system.journal.command()))
        return ids

    callers = [asyncio.create_task(submit_on()) for _ in range(4)]

    # when the server is restarted again and again
    for restart in range(1, RESTARTS + 1):
        await system.journal.started(50 * restart)
        assert await system.stack.server.child.stop((signal.SIGTERM, SERVER_STOP_SECONDS)) == 0
        await system.stack.start_server()
    await system.journal.started(system.journal.starts().total() + 50)
    stopping.set()
    ids = [job_id for task in callers for job_id in await task]
    ended = await system.all_ended(ids)

    # then each submit was answered with a job of its own, which was started once
    assert len(set(ids)) == len(ids)
    assert {job.status for job in ended} == {State.COMPLETED}
    assert system.journal.starts() == dict.fromkeys(ids, 1)


async def test_two_servers_share_the_work(system: System) -> None:
    # given a second server with a worker of its own, and jobs submitted to both servers
    async with second_server(system.stack, slots=SLOTS) as second, Client(second.address) as other:
        batches = [[shell(system.journal.command(WORK)) for _ in range(60)] for _ in range(2)]
        mine, others = await asyncio.gather(system.client.submit_many(batches[0]), other.submit_many(batches[1]))
        ended = await system.all_ended(mine + others)

        # then the workers of both run them, each once
        assert {job.status for job in ended} == {State.COMPLETED}
        assert {job.worker for job in ended} == {"worker-1", "worker-2", "second"}
        assert system.journal.starts() == dict.fromkeys(mine + others, 1)


async def test_a_job_is_reached_through_any_server(system: System) -> None:
    # given a job that runs at the second server's worker
    async with second_server(system.stack, slots=SLOTS) as second, Client(second.address) as other:
        job_id = await other.submit(shell(system.journal.command("sleep 600"), requires=(LABEL,)))
        await system.journal.started(1)

        # when it is watched and cancelled at the first
        running = await system.running(job_id)
        await system.client.cancel([job_id])
        job = await system.ended(job_id)

    # then that is the same as at its own
    assert (running.worker, job.worker) == ("second", "second")
    assert (job.status, job.reason) == (State.CANCELLED, Reason.CANCELLED)


async def test_a_server_takes_over_what_another_leaves(system: System) -> None:
    # given jobs that only the second server was told of
    async with second_server(system.stack, slots=SLOTS) as second, Client(second.address) as other:
        ids = await other.submit_many([shell(system.journal.command(WORK)) for _ in range(100)])

        # when it is killed for good, and its worker has no other
        second.server.kill()
        ended = await system.all_ended(ids)

    # then the first brings all of them to one end
    assert {job.status for job in ended} == {State.COMPLETED}
    assert {_outcomes(job)["completed"] for job in ended} == {1}
    starts = system.journal.starts()
    assert all(1 <= starts[job.id] <= 1 + job.lost for job in ended)


def _spooled(system: System) -> bytes:
    files = (system.folder / "data").glob("worker-*/worker-0/spool/*.spool")
    return b"".join(file.read_bytes().rstrip(b"\0") for file in files)


def _outcomes(job: Job) -> Counter[str]:
    return Counter(attempt.outcome for attempt in job.attempts)


async def _output(client: Client, job_id: int) -> bytes:
    return b"".join([chunk.data async for chunk in client.output(job_id, follow=True)])
