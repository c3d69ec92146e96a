"""A gigabyte of output through a supervisor: what is kept of it is exact, and the supervisor is small all the while."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orqestra.bench.processes import peak_mb
from orqestra.model.limits import KIB, OUTPUT_HEAD_BYTES, OUTPUT_TAIL_BYTES
from orqestra.worker.supervised import Supervisor
from tests.support.supervising import command, exits, run, shell, supervised
from tests.support.waiting import until

GIGABYTE = 1 << 30
# The most that a supervisor ever had in memory.
PEAK_MB = 20
BLOCK_BYTES = 64 * KIB
BLOCKS = GIGABYTE // 2 // BLOCK_BYTES
# Writes one block after the other, in turns to stdout and to stderr. No two are the same.
IN_TURNS = f"""
import os
for number in range({BLOCKS}):
    for descriptor in (1, 2):
        os.write(descriptor, b"%d %013d\\n" % (descriptor, number) * {BLOCK_BYTES // 16})
"""


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    with supervised(tmp_path) as supervisor:
        yield supervisor


def test_a_supervisor_is_small_while_a_command_writes_a_gigabyte(supervisor: Supervisor) -> None:
    exit_ = run(supervisor, shell("head -c 1G /dev/zero"))

    assert (exit_.stdout_bytes, exit_.stdout) == (GIGABYTE, bytes(OUTPUT_HEAD_BYTES + OUTPUT_TAIL_BYTES))
    assert peak(supervisor) < PEAK_MB


def test_half_a_gigabyte_each_to_stdout_and_stderr_in_turns_is_kept_exactly(supervisor: Supervisor) -> None:
    exit_ = run(supervisor, command(argv=[sys.executable.encode(), b"-ISc", IN_TURNS.encode()]))

    assert (exit_.exit_code, exit_.truncated) == (0, True)
    assert (exit_.stdout_bytes, exit_.stderr_bytes) == (GIGABYTE // 2, GIGABYTE // 2)
    assert exit_.stdout == kept_of(1)
    assert exit_.stderr == kept_of(2)
    assert peak(supervisor) < PEAK_MB


async def test_a_supervisor_gives_way_to_a_flood_for_as_long_as_it_lasts(supervisor: Supervisor) -> None:
    def policy() -> int:
        return os.sched_getscheduler(supervisor.pid)

    assert policy() == os.SCHED_OTHER
    flood = shell("yes")
    supervisor.start([flood])
    await until(lambda: policy() == os.SCHED_BATCH)
    supervisor.kill([flood.key])
    exits(supervisor, 1)
    await until(lambda: policy() == os.SCHED_OTHER)


def peak(supervisor: Supervisor) -> float:
    """Return the most that the supervisor had in memory since its start, in MB."""
    found = peak_mb(supervisor.pid)
    assert found is not None
    return found


def kept_of(descriptor: int) -> bytes:
    """Return the head and the tail of what was written there in turns."""
    head = range(OUTPUT_HEAD_BYTES // BLOCK_BYTES)
    tail = range(BLOCKS - OUTPUT_TAIL_BYTES // BLOCK_BYTES, BLOCKS)
    return b"".join(b"%d %013d\n" % (descriptor, number) * (BLOCK_BYTES // 16) for number in (*head, *tail))
