"""The command line against a whole system: real processes, as a user types it."""

import asyncio
import base64
import hashlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from orqestra.client import Client, Job, JobSpec, SyncClient, new_key, shell_payload
from orqestra.embedded.stack import Stack
from orqestra.model.lifecycle import State

pytestmark = pytest.mark.asyncio(loop_scope="module")
SECONDS = 30.0
RELAY = """\
name: relay
steps:
  - name: first
    command: printf one
  - name: second
    command: printf '%s two' "$PREVIOUS_OUTPUT"
"""
FAILING = """\
name: failing
steps:
  - command: exit 3
  - command: echo never
"""


@dataclass(frozen=True)
class Done:
    """How a command line ended."""

    code: int
    out: bytes
    err: bytes

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def document(self) -> dict[str, Any]:
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


@dataclass(frozen=True)
class Program:
    """`orqestra`, talking to one stack."""

    stack: Stack

    async def __call__(self, *arguments: str, stdin: bytes = b"") -> Done:
        process = await self.start(*arguments)
        async with asyncio.timeout(SECONDS):
            out, err = await process.communicate(stdin)
        assert b"Traceback" not in err
        assert process.returncode is not None
        return Done(process.returncode, out, err)

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "orqestra", *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "GRPC_ADDR": self.stack.grpc_addr},
        )

    async def submit(self, *arguments: str) -> str:
        done = await self("submit", *arguments)
        assert done.code == 0, done.err
        return done.text.strip()

    async def reaches(self, job_id: str, state: State) -> None:
        """Return once the job is in this state."""
        async with asyncio.timeout(SECONDS), Client(self.stack.grpc_addr) as client:
            async for job in client.watch(int(job_id)):
                if job.status is state:
                    return
        pytest.fail(f"job {job_id} ended without being {state}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def orqestra() -> AsyncIterator[Program]:
    """The program, with a server and two workers behind it."""
    with tempfile.TemporaryDirectory(prefix="orqestra-cli-") as folder:
        for name, text in (("relay", RELAY), ("failing", FAILING)):
            (Path(folder) / f"{name}.yaml").write_text(text)
        settings = {"WORKFLOWS_DIR": folder}
        async with Stack(Path(folder) / "d", workers=2, slots=4, durable=False, settings=settings) as stack:
            yield Program(stack)


async def test_the_first_line_of_the_readme(orqestra: Program) -> None:
    done = await orqestra("submit", "--type=shell", '--payload={"command":"echo hello world"}', "--retries=3")
    assert (done.code, done.err) == (0, b"")
    job_id = done.text.removesuffix("\n")
    assert job_id.isdecimal()
    await orqestra.reaches(job_id, State.COMPLETED)
    job = (await orqestra("status", job_id, "--json")).document
    assert (job["id"], job["status"], job["stdout"]) == (int(job_id), "completed", "hello world\n")
    assert (job["exit_code"], job["attempt"], job["max_retries"]) == (0, 1, 3)
    assert [attempt["outcome"] for attempt in job["attempts"]] == ["completed"]
    status = await orqestra("status", job_id)
    assert "hello world" in status.text
    assert "\x1b" not in status.text


@pytest.mark.parametrize(
    ("arguments", "code", "out", "err"),
    [
        (["--", "echo", "a  b", "$HOME"], 0, b"a  b $HOME\n", b""),
        (["--", "echo out; echo err >&2; exit 7"], 7, b"out\n", b"err\n"),
        (["--", "kill -9 $$"], 137, b"", b""),
        (["--timeout=200ms", "--", "sleep", "20"], 124, b"", None),
        (["--", "/does/not/exist"], 127, b"", None),
        (["--type=noop"], 0, b"", b""),
        (["--env=A=b=c", "--cwd=/", "--", "echo $A; pwd"], 0, b"b=c\n/\n", b""),
        (["--delay=200ms", "--", "echo", "later"], 0, b"later\n", b""),
        (["--", r"printf '\377\000\001'"], 0, b"\xff\0\x01", b""),
    ],
)
async def test_wait_is_like_running_it_here(
    orqestra: Program, arguments: list[str], code: int, out: bytes, err: bytes | None
) -> None:
    done = await orqestra("submit", "--wait", *arguments)
    assert (done.code, done.out) == (code, out)
    assert err is None or done.err == err


async def test_wait_passes_on_every_attempt_and_every_byte(orqestra: Program) -> None:
    # given attempts that end before anybody could have asked for their output
    command = 'seq 1 30000; test "$ORQESTRA_ATTEMPT" = 4'
    done = await orqestra("submit", "--wait", "--retries=3", "--backoff-base=5ms", "--", command)
    expected = b"".join(b"%d\n" % number for number in range(1, 30_001))
    assert done.code == 0
    assert hashlib.sha256(done.out).digest() == hashlib.sha256(expected * 4).digest(), len(done.out)


async def test_wait_shows_output_while_the_job_runs(orqestra: Program) -> None:
    waiting = await orqestra.start("submit", "--wait", "--", "echo first; sleep 30")
    assert waiting.stdout is not None
    async with asyncio.timeout(SECONDS):
        assert await waiting.stdout.readline() == b"first\n"
        jobs = (await orqestra("list", "--status=running", "--json")).document["jobs"]
        # when it is cancelled from elsewhere, then the waiting ends with it
        assert (await orqestra("cancel", str(jobs[0]["id"]))).code == 0
        assert await waiting.wait() == 125


async def test_interrupting_the_wait_leaves_the_job(orqestra: Program) -> None:
    waiting = await orqestra.start("submit", "--wait", "--", "echo ready; sleep 30")
    assert waiting.stdout is not None
    assert waiting.stderr is not None
    async with asyncio.timeout(SECONDS):
        await waiting.stdout.readline()
        waiting.send_signal(signal.SIGINT)
        told = (await waiting.stderr.read()).decode()
        assert await waiting.wait() == 130
    job_id = told.split("`orqestra cancel ")[1].split("`")[0]
    assert (await orqestra("status", job_id, "--json")).document["status"] == "running"
    assert (await orqestra("cancel", job_id)).text == f"{job_id} stopping\n"
    await orqestra.reaches(job_id, State.CANCELLED)


async def test_wait_as_json_is_one_document(orqestra: Program) -> None:
    done = await orqestra("submit", "--wait", "--json", "--", r"printf '\377'; exit 3")
    job = done.document
    assert (done.code, job["exit_code"], job["status"]) == (3, 3, "failed")
    assert base64.b64decode(job["stdout_base64"]) == b"\xff"


async def test_a_command_reads_our_stdin(orqestra: Program) -> None:
    done = await orqestra("submit", "--wait", "--stdin=-", "--", "cat", stdin="naïve\n".encode())
    assert (done.code, done.out) == (0, "naïve\n".encode())
    refused = await orqestra("submit", "--stdin=-", "--", "cat", stdin=b"\xff")
    assert refused.code == 2
    assert b"not valid UTF-8" in refused.err


async def test_list_filters(orqestra: Program) -> None:
    mine = await orqestra.submit("--tag=mine", "--label=gpu=yes", "--queue=slow", "--delay=1h", "--", "true")
    for options in (["--status=pending"], ["--queue=slow"], ["--label=gpu=yes"], ["--type=shell"], []):
        page = (await orqestra("list", "--tag=mine", "--json", *options)).document
        assert ([job["id"] for job in page["jobs"]], page["next"]) == ([int(mine)], None)
    assert (await orqestra("list", "--tag=mine", "--status=failed|running", "--json")).document["jobs"] == []
    for state in State:
        assert (await orqestra("list", f"--status={state}")).code == 0
    assert (await orqestra("cancel", mine)).text == f"{mine} cancelled\n"


async def test_pages_join(orqestra: Program) -> None:
    ids = [await orqestra.submit("--tag=paged", "--type=noop") for _ in range(3)]
    first = (await orqestra("list", "--tag=paged", "--limit=2", "--json")).document
    rest = (await orqestra("list", "--tag=paged", f"--after={first['next']}", "--json")).document
    assert [job["id"] for job in first["jobs"] + rest["jobs"]] == [int(job_id) for job_id in reversed(ids)]


async def test_same_key_answers_the_first_id(orqestra: Program) -> None:
    first = await orqestra.submit("--key=nightly", "--", "true")
    assert await orqestra.submit("--key=nightly", "--", "false") == first


async def test_cancel_and_retry_say_what_they_could_not_do(orqestra: Program) -> None:
    job_id = await orqestra.submit("--", "exit 4")
    await orqestra.reaches(job_id, State.FAILED)
    cancel = await orqestra("cancel", job_id)
    assert (cancel.code, cancel.out) == (1, b"")
    assert f"job {job_id} can't be cancelled: it is failed already" in cancel.err.decode()
    retry = await orqestra("retry", job_id)
    # Its state follows, which by then may be any again.
    assert (retry.code, retry.text.split()[0]) == (0, job_id)
    await orqestra.reaches(job_id, State.FAILED)
    completed = await orqestra.submit("--type=noop")
    await orqestra.reaches(completed, State.COMPLETED)
    refused = await orqestra("retry", "--json", completed)
    assert (refused.code, refused.document["errors"][0]["code"]) == (1, "refused")


@pytest.mark.parametrize("command", ["status", "cancel", "retry", "logs", "workflow status"])
async def test_what_does_not_exist_is_not_found(orqestra: Program, command: str) -> None:
    done = await orqestra(*command.split(), "999999999999")
    assert done.code == 3
    assert b"999999999999" in done.err


async def test_logs_are_the_bytes(orqestra: Program) -> None:
    job_id = await orqestra.submit("--", r"printf '\001\377'; echo err >&2")
    followed = await orqestra("logs", "--follow", job_id)
    assert (followed.code, followed.out, followed.err) == (0, b"\x01\xff", b"err\n")
    assert (await orqestra("logs", job_id)).out == b"\x01\xff"
    document = (await orqestra("logs", "--json", job_id)).document
    assert base64.b64decode(document["stdout_base64"]) == b"\x01\xff"
    assert (document["stderr"], document["stderr_base64"]) == ("err\n", None)


async def test_too_large_a_payload(orqestra: Program) -> None:
    payload = json.dumps({"command": "x" * 1024 * 1024}).encode()
    done = await orqestra("submit", "--payload=@-", stdin=payload)
    assert (done.code, done.out) == (2, b"")
    assert b"payload: " in done.err


async def test_workers(orqestra: Program) -> None:
    workers = (await orqestra("workers", "--json")).document["workers"]
    assert len(workers) == 2
    assert all((worker["slots"], worker["draining"]) == (4, False) for worker in workers)
    assert len((await orqestra("workers")).text.splitlines()) == 3


async def test_workflows(orqestra: Program) -> None:
    listing = (await orqestra("workflow", "list", "--json")).document
    assert [workflow["name"] for workflow in listing["workflows"]] == ["failing", "relay"]
    done = await orqestra("workflow", "trigger", "relay", "--wait", "--json")
    run = done.document
    assert (done.code, run["status"]) == (0, "completed")
    assert [step["job"]["stdout"] for step in run["steps"]] == ["one", "one two"]
    failed = await orqestra("workflow", "trigger", "failing", "--wait")
    assert failed.code == 1
    runs = (await orqestra("workflow", "runs", "--status=failed", "--json")).document["runs"]
    assert [run["workflow"] for run in runs] == ["failing"]
    assert (await orqestra("workflow", "trigger", "missing")).code == 3
    cancelled = await orqestra("workflow", "cancel", str(run["id"]))
    assert (cancelled.code, cancelled.out) == (1, b"")
    assert b"it is completed already" in cancelled.err


async def test_a_server_that_restarts_is_not_noticed(orqestra: Program) -> None:
    # given a job that is followed, and a server that dies
    waiting = await orqestra.start("submit", "--wait", "--", "echo before; sleep 2; echo after")
    assert waiting.stdout is not None
    async with asyncio.timeout(SECONDS):
        assert await waiting.stdout.readline() == b"before\n"
        orqestra.stack.kill_server()
        await orqestra.stack.server.child.wait()
        # when something is submitted meanwhile
        submitting = await orqestra.start("submit", "--", "true")
        await orqestra.stack.start_server()
        # then both come to their end
        out, _ = await submitting.communicate()
        assert submitting.returncode == 0
        assert out.strip().isdigit()
        assert await waiting.stdout.read() == b"after\n"
        assert await waiting.wait() == 0


async def test_scripts_without_a_loop(orqestra: Program) -> None:
    def script() -> tuple[Job, list[bytes], int]:
        with SyncClient(orqestra.stack.grpc_addr) as client:
            job = client.wait(client.submit(JobSpec(payload=shell_payload("echo hi; exit 3"), key=new_key())))
            chunks = [chunk.data for chunk in client.output(job.id)]
            return job, chunks, len(client.workers())

    job, chunks, workers = await asyncio.to_thread(script)
    assert (job.status, job.exit_code, chunks, workers) == (State.FAILED, 3, [b"hi\n"], 2)
