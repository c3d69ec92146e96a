"""How fast commands start and end in a supervisor, their ends durable, beside `xargs -P2` on the same machine.

And how long one alone takes from the Assign, as the daemon has it from the stream, to its program having been
executed, beside a bare `posix_spawn` after the same idleness.
"""

import itertools
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median, quantiles

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.measuring import Beside, Load, compare, measure, timed
from orqestra._dispatch import Command, Exit, Supervisor, wire
from orqestra.v1.worker_pb2 import Assign, Assignment, AttemptRef, ServerMessage, WorkerMessage
from orqestra.worker.environment import base_environment
from orqestra.worker.jobs import Jobs
from orqestra.worker.lease import Lease, boot_seconds
from orqestra.worker.shell import Shell
from orqestra.worker.surroundings import Surroundings
from tests.support.supervising import supervision

COMMANDS = 1000
STARTS = 100
# So long nothing happens before each: longer than ends are gathered, and what was at hand is no longer.
IDLE_SECONDS = 0.05
OUTPUT_BYTES = 256 * 1024 * 1024
PATH = [(b"PATH", b"/usr/bin:/bin")]
# Commands of one, two and three processes that write as fast as they can.
FLOODS = {
    "head": f"exec head -c {OUTPUT_BYTES} /dev/zero",
    "head, tr": f"head -c {OUTPUT_BYTES} /dev/zero | tr '\\0' x",
    "yes, head": f"yes | head -c {OUTPUT_BYTES}",
}
PROGRAMS = {"sh": ["sh", "-c", "true"], "true": ["/bin/true"]}


@pytest.fixture(params=PROGRAMS)
def program(request: pytest.FixtureRequest) -> list[str]:
    return PROGRAMS[request.param]


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    with supervision(tmp_path) as kept:
        yield kept.open()


@pytest.mark.benchmark(group="commands started and ended")
def test_supervisor(benchmark: BenchmarkFixture, supervisor: Supervisor, program: list[str]) -> None:
    argv = [word.encode() for word in program]
    keys = itertools.count()
    # Like ours, it passes one word that nobody looks at and reads nothing.
    words = "\n".join(map(str, range(COMMANDS))).encode()

    def run() -> None:
        supervisor.start([Command(key=next(keys), argv=argv, env=PATH) for _ in range(COMMANDS)])
        take(supervisor, COMMANDS)

    def xargs() -> None:
        subprocess.run(["xargs", "-P2", "-n1", *program], input=words, check=True)

    compare(
        benchmark, Load(unit="commands", count=COMMANDS), Beside(what="xargs -P2", seconds=lambda: timed(xargs)), run
    )


@pytest.mark.benchmark(group="output read")
@pytest.mark.parametrize("flood", FLOODS)
def test_output(benchmark: BenchmarkFixture, supervisor: Supervisor, flood: str) -> None:
    script = FLOODS[flood]
    keys = itertools.count()

    def run() -> None:
        supervisor.start([Command(key=next(keys), argv=[b"sh", b"-c", script.encode()], env=PATH)])
        take(supervisor, 1)

    def cat() -> None:
        subprocess.run(f"({script}) | cat >/dev/null", shell=True, check=True)

    # Each of them is fast or slow with how its processes happen to share the processors.
    load = Load(unit="bytes", count=OUTPUT_BYTES, rounds=15)
    compare(benchmark, load, Beside(what="cat", seconds=lambda: timed(cat)), run)


@pytest.fixture(params=["as all others", "before all others"])
def scheduled(request: pytest.FixtureRequest) -> Iterator[str]:
    """Let this process and what it starts go before all others, which only root may: what these do is not measured."""
    before = os.sched_getparam(0)
    if request.param == "before all others" and os.geteuid() == 0:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        yield request.param
        os.sched_setscheduler(0, os.SCHED_OTHER, before)
    else:
        yield "as all others"


@pytest.mark.benchmark(group="from the Assign to the program, idle")
def test_start(benchmark: BenchmarkFixture, scheduled: str, supervisor: Supervisor, tmp_path: Path) -> None:
    base = base_environment(os.environb, ())
    jobs = Jobs(1, Shell(base, tmp_path / "jobs", Surroundings()))
    jobs.attach(supervisor)
    now = boot_seconds()
    jobs.lease = Lease(3600.0, now, now)
    jobs.start_waiting()
    numbers = itertools.count(1)
    ours: list[float] = []
    bare: list[float] = []
    spawned: list[int] = []

    def run() -> None:
        for _ in range(STARTS if benchmark.enabled else 2):
            message = assign(next(numbers))
            time.sleep(IDLE_SECONDS)
            began = time.time()
            assigned = wire.assigned(message, apart=True)
            assert assigned is not None
            jobs.accept(assigned)
            ours.append(started_at(jobs, supervisor) - began)
            time.sleep(IDLE_SECONDS)
            bare.append(timed(lambda: spawned.append(os.posix_spawn("/bin/sh", ["sh", "-c", "true"], {}))))
            os.waitpid(spawned.pop(), 0)

    measure(benchmark, Load(unit="starts", count=STARTS, rounds=1), run)
    p50, p99 = (quantiles(ours, n=100)[at] * 1000 for at in (49, 98))
    floor = median(bare) * 1000
    benchmark.extra_info |= {"p50_ms": p50, "p99_ms": p99, "beside": "posix_spawn", "beside_p50_ms": floor}
    benchmark.extra_info["scheduled"] = scheduled


def assign(number: int) -> bytes:
    """Return a message of the server with one job for the shell."""
    attempt = AttemptRef(job_id=number, fence=1, token=1)
    payload = json.dumps({"command": "true"}).encode()
    job = Assignment(attempt=attempt, type="shell", attempt_number=1, payload=payload)
    return ServerMessage(assign=Assign(number=number, jobs=[job])).SerializeToString()


def started_at(jobs: Jobs, supervisor: Supervisor) -> float:
    """Return when the command that is under way was executed, once it has ended."""
    while (results := jobs.results.take_results()) is None:
        select.select([supervisor.fileno()], [], [])
        jobs.read_reports()
    (result,) = WorkerMessage.FromString(results).results.results
    assert result.ok, result
    return result.started_at_us / 1e6


def take(supervisor: Supervisor, count: int) -> None:
    """Take so many ends, each of them durable, and forget them."""
    while count:
        select.select([supervisor.fileno()], [], [])
        ended = [report.key for report in supervisor.reports() if isinstance(report, Exit)]
        supervisor.forget(ended)
        count -= len(ended)
