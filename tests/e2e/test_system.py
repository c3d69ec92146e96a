"""Jobs through the whole system, every process real: what a command does is what is kept of it."""

import asyncio
import dataclasses
import hashlib
import json
import os
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from orqestra.client import Job, JobSpec, JobType, OutputStream, RetryPolicy, new_key
from orqestra.model.lifecycle import RunState, State
from orqestra.model.limits import KIB, OUTPUT_HEAD_BYTES, OUTPUT_TAIL_BYTES, PREVIOUS_OUTPUT_BYTES
from orqestra.model.report import Reason
from tests.support.processes import gone
from tests.support.system import System, running_system, shell
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

WORKERS = 2
SLOTS = 4
CANARY = "ORQ_TEST_CANARY"
# More than one argument or variable of a program may have, which is 128 KiB.
LARGE_BYTES = 300 * KIB
RELAY = f"""\
name: relay
steps:
  - command: seq 1 100000 | head -c {LARGE_BYTES}
  - command: cat "$ORQESTRA_PREVIOUS_OUTPUT_FILE"; printf %s "${{PREVIOUS_OUTPUT}}" >&2
"""
# Due times are kept within 50 ms. What is beyond is for a machine that runs other tests too.
DUE_SECONDS = 0.05
BUSY_SECONDS = 1.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    workflows = tmp_path_factory.mktemp("workflows")
    (workflows / "relay.yaml").write_text(RELAY)
    settings = {CANARY: "a secret of the worker", "WORKFLOWS_DIR": str(workflows)}
    async with running_system(workers=WORKERS, slots=SLOTS, settings=settings) as running:
        yield running


async def test_each_of_200_mixed_jobs_ends_once(system: System) -> None:
    # given jobs that succeed, fail, are killed, need a second attempt, wait, and do nothing
    journal = system.journal
    retries = RetryPolicy(max_retries=1, base_ms=100)
    kinds = {
        "completes": shell(journal.command("echo done")),
        "fails": shell(journal.command("exit 7")),
        "is killed": shell(journal.command("kill -9 $$")),
        "needs two": shell(journal.command('test "$ORQESTRA_ATTEMPT" = 2 || exit 1'), retries=retries),
        "never does": shell(journal.command("exit 9"), retries=retries),
        "waits": shell(journal.command(), delay_ms=300),
        "is urgent": shell(journal.command(), priority=9),
        "does nothing": JobSpec(type=JobType.NOOP),
    }
    names = [name for name in kinds for _ in range(200 // len(kinds))]
    random.Random(1).shuffle(names)

    # when all are submitted at once
    ids = await system.client.submit_many([_fresh(kinds[name]) for name in names])
    jobs = await system.all_ended(ids)

    # then each has its one end, after exactly the starts that it needed
    expected = {
        "completes": (State.COMPLETED, 0, None, 1),
        "fails": (State.FAILED, 7, None, 1),
        "is killed": (State.FAILED, None, 9, 1),
        "needs two": (State.COMPLETED, 0, None, 2),
        "never does": (State.FAILED, 9, None, 2),
        "waits": (State.COMPLETED, 0, None, 1),
        "is urgent": (State.COMPLETED, 0, None, 1),
        "does nothing": (State.COMPLETED, 0, None, 1),
    }
    seen = Counter(
        (name, job.status, job.exit_code, job.exit_signal, job.attempt) for name, job in _paired(names, jobs)
    )
    assert seen == {(name, *end): 25 for name, end in expected.items()}
    starts = journal.starts()
    assert [starts[job.id] for name, job in _paired(names, jobs)] == [
        0 if name == "does nothing" else expected[name][3] for name in names
    ]
    assert all(len(job.attempts) == job.attempt for job in jobs)
    assert {job.worker for job in jobs} == {worker.name for worker in await system.client.workers()}


async def test_small_and_large_output_is_kept_apart_and_exactly(system: System) -> None:
    for numbers in (10, 30_000):
        job = await system.run(f"seq 1 {numbers}; seq 1 {numbers + 1} >&2")
        assert (job.output.stdout, job.output.stderr) == (_seq(numbers), _seq(numbers + 1))
        assert not job.output.truncated


async def test_of_huge_output_head_tail_and_total_are_kept(system: System) -> None:
    whole = _seq(400_000)
    kept = whole[:OUTPUT_HEAD_BYTES] + whole[-OUTPUT_TAIL_BYTES:]

    job = await system.run("seq 1 400000; echo done >&2")

    assert job.output.stdout == kept
    assert (job.output.stdout_bytes, job.output.truncated) == (len(whole), True)
    assert job.output.stderr == b"done\n"
    chunks = [chunk async for chunk in system.client.output(job.id) if chunk.stream is OutputStream.STDOUT]
    assert b"".join(chunk.data for chunk in chunks) == kept
    assert all(whole[chunk.offset :].startswith(chunk.data) for chunk in chunks)


async def test_a_step_sees_all_of_a_previous_output_that_no_variable_could_hold(system: System) -> None:
    run = await system.client.workflows.trigger("relay")

    async def has_ended() -> bool:
        return (await system.client.workflows.run(run.id)).ended

    await until(has_ended)
    ended = await system.client.workflows.run(run.id)

    assert ended.status is RunState.COMPLETED
    assert ended.steps[1].job is not None
    job = await system.client.get(ended.steps[1].job.id)
    whole = _seq(100_000)[:LARGE_BYTES]
    assert (len(job.output.stdout), job.output.stdout) == (LARGE_BYTES, whole)
    assert job.output.stderr == whole[:PREVIOUS_OUTPUT_BYTES]


async def test_binary_output_comes_back_as_it_was(system: System) -> None:
    data = random.Random(2).randbytes(500_000)
    (system.folder / "binary").write_bytes(data)

    job = await system.run(["cat", str(system.folder / "binary")])

    assert hashlib.sha256(job.output.stdout).hexdigest() == hashlib.sha256(data).hexdigest()
    assert job.output.stdout_bytes == len(data)


async def test_a_job_as_json(system: System) -> None:
    retries = RetryPolicy(max_retries=1, base_ms=50)
    job = await system.run("echo $ORQESTRA_ATTEMPT; printf '\\377' >&2; exit 3", retries=retries, tags=("nightly",))

    document = await _json(system, "status", str(job.id))

    assert document["id"] == job.id
    assert {name: document[name] for name in ("type", "status", "queue", "priority", "attempt", "max_retries")} == {
        **{"type": "shell", "status": "failed", "queue": "default", "priority": 4},
        **{"attempt": 2, "max_retries": 1},
    }
    assert {name: document[name] for name in ("exit_code", "exit_signal", "reason", "truncated", "labels", "tags")} == {
        **{"exit_code": 3, "exit_signal": None, "reason": "exited", "truncated": False},
        **{"labels": {}, "tags": ["nightly"]},
    }
    assert (document["stdout"], document["stdout_base64"]) == ("2\n", None)
    assert (document["stderr"], document["stderr_base64"]) == ("\ufffd", "/w==")
    assert [(each["number"], each["outcome"], each["stdout"]) for each in document["attempts"]] == [
        (1, "failed", "1\n"),
        (2, "failed", "2\n"),
    ]
    times = [document[name] for name in ("created_at", "available_at", "started_at", "finished_at")]
    assert times == sorted(times)
    assert all(len(time) == len("2030-01-31T18:30:00.000120Z") and time[-1] == "Z" for time in times)
    (listed,) = (await _json(system, "list", "--tag=nightly"))["jobs"]
    assert listed.keys() == document.keys()


@pytest.mark.alone
async def test_delayed_jobs_start_at_their_time(system: System) -> None:
    delays_ms = [300 + 50 * number for number in range(10)]
    jobs = await asyncio.gather(*(system.run("true", delay_ms=delay_ms) for delay_ms in delays_ms))

    late = sorted(_seconds(job, delay_ms) for job, delay_ms in zip(jobs, delays_ms, strict=True))

    assert late[0] >= 0, late
    assert late[len(late) // 4] < DUE_SECONDS, late
    assert late[-1] < BUSY_SECONDS, late


@pytest.mark.alone
async def test_retries_wait_no_longer_than_their_backoff(system: System) -> None:
    job = await system.run("exit 1", retries=RetryPolicy(max_retries=4, base_ms=100, factor=2, cap_ms=400))

    assert [attempt.number for attempt in job.attempts] == [1, 2, 3, 4, 5]
    for number, (before, after) in enumerate(zip(job.attempts, job.attempts[1:], strict=False)):
        assert before.finished_at is not None
        assert after.started_at is not None
        waited = after.started_at - before.finished_at
        assert timedelta(0) <= waited < timedelta(milliseconds=100 * 2**number, seconds=BUSY_SECONDS)


async def test_the_environment_of_a_command_is_an_allow_list(system: System) -> None:
    job = await system.run(["env"])

    names = {line.split("=", 1)[0] for line in job.output.stdout.decode().splitlines()}
    ours = {"ORQESTRA_JOB_ID", "ORQESTRA_ATTEMPT", "ORQESTRA_FENCE", "ORQESTRA_TMPDIR"}
    assert names - {"PATH", "HOME", "LANG", "TZ", "TMPDIR"} == ours
    values = dict(line.split("=", 1) for line in job.output.stdout.decode().splitlines())
    assert values["TMPDIR"] == values["ORQESTRA_TMPDIR"]
    assert Path(values["TMPDIR"]).is_relative_to(system.folder)
    assert b"secret" not in job.output.stdout
    assert CANARY in psutil.Process(system.stack.worker(0).child.pid).environ()


async def test_a_child_that_outlives_its_shell_does_not_hold_the_slot(system: System) -> None:
    started = [await system.submit("sleep 600 & echo $!") for _ in range(WORKERS * SLOTS)]
    jobs = await system.all_ended(started)

    assert (await system.run("echo free")).output.stdout == b"free\n"
    assert {job.status for job in jobs} == {State.COMPLETED}
    assert await _all_gone(jobs)


async def test_a_cancel_reaches_the_whole_group(system: System) -> None:
    job_id = await system.submit("sleep 600 & echo $!; (sleep 600; true) & echo $!; wait; echo never")
    chunks = system.client.output(job_id, follow=True)
    written = b""
    while written.count(b"\n") < 2:
        written += (await anext(chunks)).data

    await system.client.cancel([job_id])
    job = await system.ended(job_id)

    assert (job.status, job.reason) == (State.CANCELLED, Reason.CANCELLED)
    assert job.output.stdout == written
    assert await _all_gone([job])


async def test_a_timeout_ends_the_whole_group_and_is_told(system: System) -> None:
    job = await system.run("trap '' TERM; sleep 600 & echo $!; wait; sleep 600", timeout_ms=300, grace_ms=200)

    assert (job.status, job.reason) == (State.FAILED, Reason.KILLED_AFTER_GRACE)
    assert job.error == "ran longer than its timeout of 300 ms; it had to be killed"
    assert await _all_gone([job])


def _fresh(spec: JobSpec) -> JobSpec:
    """Return the same job with a key of its own."""
    return dataclasses.replace(spec, key=new_key())


def _paired(names: list[str], jobs: list[Job]) -> list[tuple[str, Job]]:
    return list(zip(names, jobs, strict=True))


def _seq(last: int) -> bytes:
    return b"".join(b"%d\n" % number for number in range(1, last + 1))


def _seconds(job: Job, delay_ms: int) -> float:
    """Return how long after it was due the job was started."""
    assert job.created_at is not None
    assert job.started_at is not None
    return (job.started_at - job.created_at).total_seconds() - delay_ms / 1000


async def _json(system: System, *arguments: str) -> dict[str, Any]:
    """Return the document that the command line prints."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "orqestra", *arguments, "--json"),
        env={**os.environ, "GRPC_ADDR": system.stack.grpc_addr},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    document = json.loads(out)
    assert isinstance(document, dict)
    return document


async def _all_gone(jobs: list[Job]) -> bool:
    """Tell whether the processes whose ids the jobs wrote have ended."""
    pids = [int(pid) for job in jobs for pid in job.output.stdout.split()]
    assert len(pids) >= len(jobs)
    return all(await asyncio.gather(*map(gone, pids)))
