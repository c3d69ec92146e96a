"""What became of every single job of a load: a figure counts only if none was lost and none was run twice.

The jobs are read after the load: from Postgres if we may, else from the server, page after page.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import asyncpg

from orqestra.bench.load import TAG, Wait
from orqestra.bench.progress import Progress
from orqestra.bench.report import Verdict
from orqestra.bench.wire import Wire
from orqestra.client.decode import STATES
from orqestra.model.lifecycle import TERMINAL, State
from orqestra.store.queries import load_queries
from orqestra.v1 import jobs_pb2

CHUNK_JOBS: Final = 50_000
NANOSECONDS: Final = 1e9


class Seen(NamedTuple):
    """A job as it was found. Times are seconds since 1970 by the clock of Postgres; 0 is none."""

    id: int
    state: State
    attempt: int
    fence: int
    created_at: float
    finished_at: float


class Fate(NamedTuple):
    """How a job is to end, and after how many starts."""

    state: State = State.COMPLETED
    starts: int = 1


COMPLETES: Final = Fate()
NO_FATES: Final[Mapping[int, Fate]] = {}
# A server, or the URL of its database.
Source = Wire | str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a load. `latencies` are from the submit of a job to its end, in seconds."""

    verdict: Verdict
    seconds: float
    latencies: Sequence[float] = field(repr=False)


def jobs_per_s(jobs: int, outcomes: Sequence[Outcome]) -> float:
    """Return the rate of loads one after the other, of so many jobs each."""
    return jobs * len(outcomes) / sum(outcome.seconds for outcome in outcomes)


async def look(
    source: Source, waits: Sequence[Wait], progress: Progress, fates: Mapping[int, Fate] = NO_FATES
) -> list[Outcome]:
    """Read every job of some loads; return what became of each load, as `judge` does."""
    first, last = min(wait.ids[0] for wait in waits), max(wait.last for wait in waits)
    progress.begin("checked", last - first + 1)
    of_source = _of_postgres(source, first, last) if isinstance(source, str) else _of_server(source, first, last)
    found: list[Seen] = []
    async for page in of_source:
        found.extend(page)
        progress.reached(len(found))
    return [judge(wait, found, fates) for wait in waits]


def judge(wait: Wait, found: Iterable[Seen], fates: Mapping[int, Fate] = NO_FATES) -> Outcome:
    """Return what became of a load, of whose jobs these were found; others are passed over.

    A job that `fates` does not name is to complete at its first start.
    """
    wanted = frozenset(wait.ids)
    ended = {job.id: job for job in found if job.id in wanted and job.state in TERMINAL}
    expected = [(job, fates.get(job.id, COMPLETES)) for job in ended.values()]
    last = ended.get(wait.last)
    after_last = max(job.finished_at for job in ended.values()) - last.finished_at if last else 0.0
    return Outcome(
        seconds=wait.heard_at - wait.began_at + after_last,
        latencies=[job.finished_at - job.created_at for job in ended.values()],
        verdict=Verdict(
            lost=len(wanted) - len(ended) + len(wait.ids) - len(wanted),
            duplicated=sum(max(job.attempt, job.fence) > fate.starts for job, fate in expected),
            failed=sum(job.state is not fate.state or job.attempt < fate.starts for job, fate in expected),
        ),
    )


def seen(job: jobs_pb2.Job) -> Seen:
    """Return a job as the server tells it."""
    return Seen(
        id=job.id,
        state=STATES[job.status],
        attempt=job.attempt,
        fence=job.fence,
        created_at=job.created_at.seconds + job.created_at.nanos / NANOSECONDS,
        finished_at=job.finished_at.seconds + job.finished_at.nanos / NANOSECONDS,
    )


async def _of_server(wire: Wire, first: int, last: int) -> AsyncIterator[list[Seen]]:
    async for page in wire.jobs(TAG, first, last):
        yield [seen(job) for job in page]


async def _of_postgres(url: str, first: int, last: int) -> AsyncIterator[list[Seen]]:
    query = load_queries("orqestra.bench")["read_jobs"]
    connection = await asyncpg.connect(url)
    try:
        while first <= last:
            arguments = query.arguments({"first": first, "last": last, "tag": TAG, "chunk": CHUNK_JOBS})
            rows = [Seen(row[0], State(row[1]), *row[2:]) for row in await connection.fetch(query.text, *arguments)]
            yield rows
            first = rows[-1].id + 1 if rows else last + 1
    finally:
        await connection.close()
