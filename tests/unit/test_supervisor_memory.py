"""What a supervisor takes of the memory, and what it tells of the memory of its commands."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orqestra.bench.processes import peak_mb
from orqestra.model.limits import KIB
from orqestra.worker.supervised import Supervisor
from tests.support.supervising import command, run, shell, supervised

# The most that one has while commands write nothing; an interpreter that has only just begun has more.
SMALL_MB = 7
# What an interpreter takes at most for a program of one line.
INTERPRETER_MB = 20


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    with supervised(tmp_path) as supervisor:
        yield supervisor


def test_a_supervisor_holds_little_once_it_has_started(supervisor: Supervisor) -> None:
    run(supervisor, shell("true"))
    peak = peak_mb(supervisor.pid)
    assert peak is not None
    assert peak < SMALL_MB


@pytest.mark.parametrize("mebibytes", [4, 16])
def test_the_peak_of_a_command_that_is_larger_than_its_supervisor_is_told(
    supervisor: Supervisor, mebibytes: int
) -> None:
    # This process, which started the supervisor, is larger than either: it must not count.
    program = f"print(len(bytearray({mebibytes} << 20)))"
    exit_ = run(supervisor, command(argv=[sys.executable.encode(), b"-ISc", program.encode()]))
    assert mebibytes < exit_.max_rss_kb / KIB < mebibytes + INTERPRETER_MB
