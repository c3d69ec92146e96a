"""How fast commands start and end in a supervisor, their ends durable, beside `xargs -P2` on the same machine."""

import itertools
import select
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.measuring import Beside, Load, compare, measure, timed
from orqestra._dispatch import Command, Exit, Supervisor
from tests.support.supervising import supervision

COMMANDS = 1000
OUTPUT_BYTES = 256 * 1024 * 1024
PATH = [(b"PATH", b"/usr/bin:/bin")]
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
def test_output(benchmark: BenchmarkFixture, supervisor: Supervisor) -> None:
    argv = [b"head", b"-c", str(OUTPUT_BYTES).encode(), b"/dev/zero"]
    keys = itertools.count()

    def run() -> None:
        supervisor.start([Command(key=next(keys), argv=argv, env=PATH)])
        take(supervisor, 1)

    measure(benchmark, Load(unit="bytes", count=OUTPUT_BYTES), run)


def take(supervisor: Supervisor, count: int) -> None:
    """Take so many ends, each of them durable, and forget them."""
    while count:
        select.select([supervisor.fileno()], [], [])
        ended = [report.key for report in supervisor.reports() if isinstance(report, Exit)]
        supervisor.forget(ended)
        count -= len(ended)
