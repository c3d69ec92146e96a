"""What a worker tells of its starts, through a pipe that may be full, to whoever measures."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from orqestra.bench.journal import Journal, Reader, Starts
from orqestra.model.report import AttemptRef
from tests.support.waiting import until

SECONDS = 10.0
# More than a pipe holds.
MANY = 50_000


def attempts(*job_ids: int) -> list[AttemptRef]:
    return [AttemptRef(job_id, 1, 1) for job_id in job_ids]


@pytest_asyncio.fixture
async def reader(tmp_path: Path) -> AsyncIterator[tuple[Reader, Starts, Path]]:
    starts = Starts()
    reader = Reader(tmp_path / "journal", starts)
    yield reader, starts, tmp_path / "journal"
    reader.close()


async def test_starts_are_told_as_they_happen(reader: tuple[Reader, Starts, Path]) -> None:
    ending, starts, path = reader
    journal = Journal(path)
    before_ns = time.monotonic_ns()
    awaited = asyncio.create_task(starts.seen(2, SECONDS))
    assert not await starts.seen(3, 0)

    journal.note(attempts(1, 2))
    assert await starts.seen(1, SECONDS)
    assert await awaited
    assert before_ns <= starts.at_ns[1] <= time.monotonic_ns()
    assert starts.at_ns[1] == starts.at_ns[2] == starts.first_ns

    journal.note(attempts(3))
    journal.close()
    async with asyncio.timeout(SECONDS):
        await ending.end()
    assert list(starts.at_ns) == [1, 2, 3]
    assert (starts.count, starts.doubled) == (3, 0)


async def test_what_a_full_pipe_does_not_take_is_told_at_the_end(reader: tuple[Reader, Starts, Path]) -> None:
    ending, starts, path = reader
    journal = Journal(path)
    journal.note(attempts(*range(MANY)))
    journal.note(attempts(MANY))

    # In a thread: it waits until the loop has read.
    await asyncio.to_thread(journal.close)

    async with asyncio.timeout(SECONDS):
        await ending.end()
    assert starts.at_ns.keys() == set(range(MANY + 1))


async def test_a_job_that_starts_twice_is_noticed(tmp_path: Path) -> None:
    starts = Starts()
    readers = [Reader(tmp_path / name, starts) for name in ("one", "two")]
    journals = [Journal(tmp_path / name) for name in ("one", "two")]

    for journal in journals:
        journal.note(attempts(7, 8))
        journal.close()

    async with asyncio.timeout(SECONDS):
        await asyncio.gather(*(reader.end() for reader in readers))
    assert (starts.count, starts.doubled) == (4, 2)


async def test_a_worker_that_is_gone_ends_it(reader: tuple[Reader, Starts, Path]) -> None:
    ending, starts, path = reader
    journal = Journal(path)
    journal.note(attempts(1))
    await until(lambda: starts.count == 1, SECONDS)
    journal.close()

    async with asyncio.timeout(SECONDS):
        await ending.end()
