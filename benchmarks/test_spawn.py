"""How fast commands start and end, beside `xargs -P2` on the same machine."""

import select
import subprocess
from collections.abc import Callable

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from orqestra._dispatch import Command, Executor

COMMANDS = 1000
OUTPUT_BYTES = 256 * 1024 * 1024
BALLAST_BYTES = 300 * 1024 * 1024
PAGE_BYTES = 4096
PATH = [(b"PATH", b"/usr/bin:/bin")]
STARTS = pytest.mark.benchmark(group="commands started and ended")
PROGRAMS = {"sh": ["sh", "-c", "true"], "true": ["/bin/true"]}


@pytest.fixture(params=PROGRAMS)
def program(request: pytest.FixtureRequest) -> list[str]:
    return PROGRAMS[request.param]


@STARTS
def test_executor(benchmark: BenchmarkFixture, program: list[str]) -> None:
    measure(benchmark, "commands", COMMANDS, burst(program))


@STARTS
def test_executor_in_a_large_process(benchmark: BenchmarkFixture, program: list[str]) -> None:
    ballast = bytearray(BALLAST_BYTES)
    ballast[::PAGE_BYTES] = b"1" * (BALLAST_BYTES // PAGE_BYTES)
    measure(benchmark, "commands", COMMANDS, burst(program))


@STARTS
def test_xargs(benchmark: BenchmarkFixture, program: list[str]) -> None:
    # Like ours, it passes one word that nobody looks at and reads nothing.
    words = "\n".join(map(str, range(COMMANDS))).encode()

    def run() -> None:
        subprocess.run(["xargs", "-P2", "-n1", *program], input=words, check=True)

    measure(benchmark, "commands", COMMANDS, run)


@pytest.mark.benchmark(group="output read")
def test_output(benchmark: BenchmarkFixture) -> None:
    argv = [b"head", b"-c", str(OUTPUT_BYTES).encode(), b"/dev/zero"]
    executor = Executor()

    def run() -> None:
        executor.start([Command(key=1, argv=argv, env=PATH)])
        wait(executor, 1)

    measure(benchmark, "bytes", OUTPUT_BYTES, run)


def burst(program: list[str]) -> Callable[[], None]:
    """A function that runs the program many times and takes all reports."""
    executor = Executor(spawners=2)
    argv = [word.encode() for word in program]
    commands = [Command(key=key, argv=argv, env=PATH) for key in range(COMMANDS)]

    def run() -> None:
        executor.start(commands)
        wait(executor, COMMANDS)

    return run


def wait(executor: Executor, count: int) -> None:
    while count:
        select.select([executor.fileno()], [], [])
        count -= len(executor.reports())


def measure(benchmark: BenchmarkFixture, unit: str, count: int, run: Callable[[], None]) -> None:
    """Measure `run`, and note how many of what it does."""
    benchmark.extra_info[unit] = count
    benchmark.pedantic(run, rounds=5, warmup_rounds=1)  # type: ignore[no-untyped-call]  # the library has no types
