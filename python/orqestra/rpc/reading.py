"""What the services read for people: jobs whole and in pages, stored output."""

from collections.abc import Iterable, Sequence
from typing import Final

from orqestra.model import limits
from orqestra.model.errors import NotFound
from orqestra.model.job import label_list
from orqestra.model.lifecycle import State
from orqestra.rpc import decode, encode
from orqestra.store.database import Database, Row
from orqestra.v1 import jobs_pb2

UNHAPPY: Final = frozenset({State.FAILED, State.CANCELLED})
NEWEST: Final = 2**63 - 1


async def find_job(database: Database, job_id: int) -> Row:
    """Return the row of a job; raises NotFound."""
    row = await database.fetch_one("get_job", id=job_id) if job_id <= NEWEST else None
    if row is None:
        raise NotFound("job", job_id)
    return row


async def whole_job(database: Database, job_id: int, *, with_output: bool) -> jobs_pb2.Job:
    """Return a job with its attempts; the output beyond the row only of the last one."""
    row = await find_job(database, job_id)
    attempts = await database.fetch("get_attempts", id=job_id, at_most=limits.ATTEMPTS_SHOWN)
    if not with_output:
        return encode.job_without_output(row, attempts)
    return encode.job_whole(row, attempts, await stored_output(database, [row]))


async def stored_output(database: Database, rows: Iterable[Row]) -> dict[tuple[int, int, int], bytes]:
    """Return the stored output of the last attempts of jobs, by job, fence and stream."""
    found: dict[tuple[int, int, int], bytes] = {}
    for row in rows:
        if (row["stdout_bytes"] or 0) > limits.OUTPUT_INLINE_BYTES or (
            row["stderr_bytes"] or 0
        ) > limits.OUTPUT_INLINE_BYTES:
            for piece in await database.fetch("get_whole_output", id=row["id"], fences=[row["fence"]]):
                found[row["id"], piece["fence"], piece["stream"]] = piece["bytes"]
    return found


async def page_of_jobs(database: Database, request: jobs_pb2.ListJobsRequest) -> jobs_pb2.ListJobsResponse:
    """Return one page, newest first."""
    states = decode.states(request.statuses)
    page = decode.page_size(request.limit)
    decode.check_job_filter(request)
    unhappy = bool(states) and UNHAPPY.issuperset(states)
    row = await database.fetch_one(
        "list_unhappy" if unhappy else "list_jobs",
        after=decode.page_start(request.after) or NEWEST,
        scan=limits.PAGE_SCANNED_ROWS,
        states=states,
        queue=request.queue or None,
        type=request.type or None,
        tags=list(request.tags),
        labels=list(label_list(request.labels)),
        page=page,
    )
    assert row is not None
    ids: Sequence[int] = row["ids"] or ()
    summaries = await database.fetch("get_summaries", ids=ids) if ids else []
    return jobs_pb2.ListJobsResponse(jobs=map(encode.job_summary, summaries), next=_next_page(row, ids, page))


def _next_page(row: Row, ids: Sequence[int], page: int) -> int:
    """Return where the next page begins: after the last job shown, or the last row looked at; 0 at the end."""
    if len(ids) == page:
        return ids[-1]
    return row["last_seen"] if row["seen"] == limits.PAGE_SCANNED_ROWS else 0
