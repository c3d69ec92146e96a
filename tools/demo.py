"""`make demo`: a small system in this terminal, real jobs, and a summary that checks itself.

Starts Postgres, Redis, a server and two workers in a temporary folder, submits jobs of every kind, shows
how they go, and ends with what was promised and what was seen. Exit code 0 if all of it held, else 1.
"""

import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from orqestra.client import Client, Job, JobFilter, JobSpec, RetryPolicy, Run, new_key, shell_payload
from orqestra.embedded.stack import Stack
from orqestra.log import configure
from orqestra.model.errors import OrqestraError
from orqestra.model.lifecycle import TERMINAL, RunState, State
from tools.demo_view import Row, View

WORKERS: Final = 2
SLOTS: Final = 16
BURST: Final = 200
DELAY_MS: Final = 2_000
DEADLINE_SECONDS: Final = 45.0
LOOK_SECONDS: Final = 0.1
# Due times are kept within 50 ms; the rest is for a machine that does all of this at once.
LATE_SECONDS: Final = 1.0
INTERRUPTED: Final = 130
ALL_BYTES: Final = bytes(range(256))

WORKFLOW: Final = """\
name: relay
steps:
  - name: first
    command: printf one
  - name: second
    command: printf '%s two' "$PREVIOUS_OUTPUT"
  - name: third
    command: printf '%s three' "$PREVIOUS_OUTPUT"
"""


@dataclass(kw_only=True)
class Seen:
    """What came of everything, for the summary."""

    jobs: dict[str, Job] = field(default_factory=dict)
    burst: list[Job] = field(default_factory=list)
    burst_ids: tuple[int, ...] = ()
    run: Run | None = None
    steps: list[Job] = field(default_factory=list)


def main() -> int:
    """Run the demonstration; return the exit code."""
    configure(level="warning")
    began = time.monotonic()
    view = View()
    with tempfile.TemporaryDirectory(prefix="orqestra-demo-") as folder:
        try:
            seen = asyncio.run(demonstrate(Path(folder), view))
        except KeyboardInterrupt:
            view.say("Stopped.")
            return INTERRUPTED
        except (OrqestraError, TimeoutError, ExceptionGroup) as error:
            view.say(f"The demonstration failed: {str(cause(error)) or 'it took too long'}")
            return 1
        checks = [*check(seen), ("no process is left", not processes_in(folder))]
    for claim, holds in checks:
        view.check(claim, holds=holds)
    held = sum(holds for _, holds in checks)
    view.say(f"{held} of {len(checks)} hold, after {time.monotonic() - began:.1f} s.")
    return 0 if held == len(checks) else 1


def cause(error: Exception) -> Exception:
    """Return the first error in a group of tasks, or the error itself."""
    return cause(error.exceptions[0]) if isinstance(error, ExceptionGroup) else error


async def demonstrate(folder: Path, view: View) -> Seen:
    """Start the system, run everything at once, stop the system; return what was seen."""
    (folder / "relay.yaml").write_text(WORKFLOW)
    view.say(f"Starting Postgres, Redis, a server and {WORKERS} workers ...")
    stack = Stack(folder / "data", workers=WORKERS, slots=SLOTS, settings={"WORKFLOWS_DIR": str(folder)})
    seen = Seen()
    async with stack, Client(stack.grpc_addr) as client, asyncio.timeout(DEADLINE_SECONDS):
        with view:
            async with asyncio.TaskGroup() as group:
                for name, spec in exhibits().items():
                    group.create_task(show_job(client, view, seen, name, spec))
                group.create_task(show_burst(client, view, seen))
                group.create_task(show_run(client, view, seen))
        view.say("Stopping ...")
    return seen


def exhibits() -> dict[str, JobSpec]:
    """Return the single jobs, by the names they are shown under."""
    return {
        "echo": shell("echo hello world"),
        "fails twice": shell(
            'echo "attempt $ORQESTRA_ATTEMPT"; test "$ORQESTRA_ATTEMPT" -eq 3',
            retries=RetryPolicy(max_retries=3, base_ms=500, cap_ms=1_000),
        ),
        "delayed": shell("echo it is time", delay_ms=DELAY_MS),
        "cancelled": shell("echo working; sleep 60"),
        "binary": shell("printf '" + "".join(f"\\{byte:03o}" for byte in ALL_BYTES) + "'"),
    }


def shell(command: str, *, delay_ms: int = 0, retries: RetryPolicy | None = None) -> JobSpec:
    """Return a job that runs a command."""
    return JobSpec(payload=shell_payload(command), delay_ms=delay_ms, retries=retries or RetryPolicy(), key=new_key())


async def show_job(client: Client, view: View, seen: Seen, name: str, spec: JobSpec) -> None:
    """Submit a job and show it to its end; cancel the one that is there for it."""
    job_id = await client.submit(spec)
    async for job in client.watch(job_id):
        view.show(_row(name, job))
        if name == "cancelled" and job.status is State.RUNNING and not job.cancel_requested:
            await client.cancel([job_id])
    seen.jobs[name] = await client.get(job_id)
    view.show(_row(name, seen.jobs[name]))


async def show_burst(client: Client, view: View, seen: Seen) -> None:
    """Submit many jobs at once and show how many are through."""
    specs = [
        JobSpec(payload=shell_payload(["echo", str(number)]), tags=("burst",), key=new_key()) for number in range(BURST)
    ]
    seen.burst_ids = await client.submit_many(specs)

    async def count() -> bool:
        page = await client.list(JobFilter(tags=("burst",)), limit=BURST)
        states = Counter(job.status for job in page.jobs)
        ended = sum(states[state] for state in TERMINAL)
        status = State.COMPLETED if ended == BURST else State.RUNNING
        view.show(Row(name=f"burst of {BURST}", job="", status=status, detail=f"{ended} ended"))
        return ended == BURST

    await until(count)
    seen.burst = [await client.get(job_id) for job_id in seen.burst_ids]


async def show_run(client: Client, view: View, seen: Seen) -> None:
    """Trigger the workflow and show how far it is."""
    run_id = (await client.workflows.trigger("relay", key=new_key())).id

    async def look() -> bool:
        seen.run = run = await client.workflows.run(run_id)
        done = [step.key for step in run.steps if step.job and step.job.status is State.COMPLETED]
        view.show(Row(name="workflow", job=f"run {run_id}", status=run.status, detail=" > ".join(done)))
        return run.ended

    await until(look)
    assert seen.run is not None
    seen.steps = [await client.get(step.job.id) for step in seen.run.steps if step.job is not None]


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Return once `condition` holds; the deadline of all bounds it."""
    while True:
        if await condition():
            return
        await asyncio.sleep(LOOK_SECONDS)


def check(seen: Seen) -> list[tuple[str, bool]]:
    """Return every promise, and whether it was kept."""
    return [*check_single_jobs(seen.jobs), *check_many(seen)]


def check_single_jobs(jobs: dict[str, Job]) -> list[tuple[str, bool]]:
    """Return the promises about single jobs."""
    echo, flaky, delayed, cancelled, binary = (jobs[name] for name in exhibits())
    outcomes = [(attempt.outcome, attempt.exit_code) for attempt in flaky.attempts]
    outputs = [attempt.output.stdout for attempt in flaky.attempts]
    return [
        ("echo: completed with exactly its output", _gave(echo, b"hello world\n")),
        ("fails twice: completed", flaky.status is State.COMPLETED and flaky.attempt == len(flaky.attempts)),
        ("fails twice: two failures, then a success", outcomes == [("failed", 1)] * 2 + [("completed", 0)]),
        (
            "fails twice: each attempt has its own output",
            outputs == [f"attempt {number}\n".encode() for number in (1, 2, 3)],
        ),
        ("delayed: completed", _gave(delayed, b"it is time\n")),
        ("delayed: not early, and not late", 0 <= _lateness(delayed) < LATE_SECONDS),
        ("cancelled: while it ran", cancelled.status is State.CANCELLED and len(cancelled.attempts) == 1),
        ("binary: all 256 bytes, exactly", _gave(binary, ALL_BYTES)),
    ]


def check_many(seen: Seen) -> list[tuple[str, bool]]:
    """Return the promises about the burst and the workflow."""
    gave_own = [_gave(job, f"{number}\n".encode()) for number, job in enumerate(seen.burst)]
    workers = {job.worker for job in seen.burst}
    ends = [(step.started_at, step.finished_at) for step in seen.steps]
    times = [time for pair in ends for time in pair if time is not None]
    return [
        (f"burst: all {BURST} completed, each with its own output", len(gave_own) == BURST and all(gave_own)),
        ("burst: ids in the order of submission", list(seen.burst_ids) == sorted(set(seen.burst_ids))),
        ("burst: one attempt each", all(len(job.attempts) == 1 for job in seen.burst)),
        (f"burst: shared by {WORKERS} workers", len(workers) == WORKERS),
        ("workflow: completed", seen.run is not None and seen.run.status is RunState.COMPLETED),
        (
            "workflow: each step got the output of the one before",
            [step.output.stdout for step in seen.steps] == [b"one", b"one two", b"one two three"],
        ),
        ("workflow: the steps ran in order", len(times) == 2 * len(seen.steps) and times == sorted(times)),
    ]


def processes_in(folder: str) -> list[int]:
    """Return the processes whose command line, environment or working directory names the folder."""
    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if _names(path, folder)]


def _names(process: Path, folder: str) -> bool:
    try:
        texts = ((process / "cmdline").read_bytes(), (process / "environ").read_bytes())
        return any(folder.encode() in text for text in texts) or folder in str((process / "cwd").readlink())
    except OSError:  # it has ended, or is somebody else's
        return False


def _gave(job: Job, output: bytes) -> bool:
    return job.status is State.COMPLETED and job.exit_code == 0 and job.output.stdout == output


def _lateness(job: Job) -> float:
    """Return the seconds between the time a job was due and its start."""
    assert job.created_at is not None
    assert job.started_at is not None
    return (job.started_at - job.created_at).total_seconds() - DELAY_MS / 1000


def _row(name: str, job: Job) -> Row:
    last_line = job.output.stdout.decode(errors="backslashreplace").strip().rpartition("\n")[2]
    detail = "stopping" if job.cancel_requested and not job.ended else last_line
    return Row(name=name, job=str(job.id), status=job.status, attempt=job.attempt, detail=detail)


if __name__ == "__main__":
    sys.exit(main())
