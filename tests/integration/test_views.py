"""What is read for people: pages newest first, bounded scans, output in pieces, workers."""

from typing import Any

import pytest

from orqestra.model import limits
from orqestra.model.lifecycle import State
from orqestra.rpc.reading import NEWEST, page_of_jobs
from orqestra.store.database import Row
from orqestra.v1 import jobs_pb2
from tests.support.engine import Engine, failed, noop, piece, succeeded

pytestmark = pytest.mark.asyncio(loop_scope="module")

FILTERS: dict[str, Any] = {"states": [], "queue": None, "type": None, "tags": [], "labels": []}


async def listed(engine: Engine, query: str = "list_jobs", **about: Any) -> Row:
    """Run one page of a list."""
    values = {"after": NEWEST, "scan": limits.PAGE_SCANNED_ROWS, "page": 50, **FILTERS, **about}
    row = await engine.database.fetch_one(query, **values)
    assert row is not None
    return row


# Pages


async def test_pages_follow_each_other_newest_first_without_gap_or_repeat(engine: Engine) -> None:
    ids = list((await engine.store(*[noop(queue="paged")] * 25)).ids)
    seen: list[int] = []
    after = 0
    sizes = []

    while True:
        request = jobs_pb2.ListJobsRequest(queue="paged", limit=10, after=after)
        page = await page_of_jobs(engine.database, request)
        seen += [job.id for job in page.jobs]
        sizes.append(len(page.jobs))
        # What is submitted meanwhile is newer than any page to come.
        await engine.submit(queue="paged")
        after = page.next
        if not after:
            break

    assert seen == ids[::-1]
    assert sizes == [10, 10, 5]


async def test_a_page_looks_at_a_bounded_number_of_rows_and_says_where_it_stopped(engine: Engine) -> None:
    wanted = await engine.submit(queue="deep")
    others = list((await engine.store(*[noop()] * 10)).ids)

    first = await listed(engine, queue="deep", scan=10)
    second = await listed(engine, queue="deep", scan=10, after=first["last_seen"])

    assert (first["ids"], first["seen"], first["last_seen"]) == (None, 10, others[0])
    assert second["ids"][0] == wanted


async def test_every_filter_filters_and_all_of_them_together(engine: Engine) -> None:
    worker = await engine.connect()
    about = {"queue": "filtered", "tags": ("a", "b"), "requires": ("arch=arm", "zone=eu")}
    wanted = await engine.submit(**about)
    done = await engine.submit(**about)
    await engine.settle(*map(succeeded, await engine.claim(worker, done)))
    plain = await engine.submit(queue="filtered")
    shell = await engine.submit(queue="filtered", type="shell", payload=b'{"command": "true"}')

    async def found(**given: Any) -> list[int]:
        ids: list[int] = (await listed(engine, **{"queue": "filtered", **given}))["ids"] or []
        return ids

    assert await found() == [shell, plain, done, wanted]
    assert await found(type="shell") == [shell]
    assert await found(tags=["b"]) == await found(tags=["b", "a"]) == [done, wanted]
    assert await found(tags=["c"]) == []
    assert await found(labels=["zone=eu"]) == [done, wanted]
    assert await found(labels=["zone=eu", "arch=arm"]) == [done, wanted]
    assert await found(labels=["zone=us"]) == []
    assert await found(states=[State.PENDING]) == [shell, plain, wanted]
    assert await found(states=[State.PENDING], tags=["a"], labels=["zone=eu"], type="noop") == [wanted]


async def test_what_failed_or_was_cancelled_has_a_list_of_its_own(engine: Engine) -> None:
    worker = await engine.connect()
    broken = await engine.running(worker, queue="unhappy")
    done = await engine.running(worker, queue="unhappy")
    cancelled = await engine.submit(queue="unhappy")
    await engine.settle(failed(broken), succeeded(done))
    await engine.cancels.cancel([cancelled])

    async def found(**given: Any) -> list[int]:
        ids: list[int] = (await listed(engine, "list_unhappy", **{"queue": "unhappy", **given}))["ids"] or []
        return ids

    assert await found(states=[State.FAILED, State.CANCELLED]) == [cancelled, broken["id"]]
    assert await found(states=[State.FAILED]) == [broken["id"]]
    page = await page_of_jobs(
        engine.database, jobs_pb2.ListJobsRequest(queue="unhappy", statuses=[jobs_pb2.STATUS_CANCELLED])
    )
    assert [job.id for job in page.jobs] == [cancelled]


async def test_summaries_have_no_output(engine: Engine) -> None:
    row = await engine.running(await engine.connect(), payload=b'"in"')
    await engine.settle(succeeded(row, stdout=b"out", stdout_bytes=3))

    [summary] = await engine.database.fetch("get_summaries", ids=[row["id"]])

    assert summary["stdout_bytes"] == 3
    assert not {"payload", "stdout", "stderr"} & set(summary.keys())


# One job


async def test_the_latest_attempts_are_shown_oldest_first(engine: Engine) -> None:
    worker = await engine.connect(name="the worker")
    row = await engine.running(worker)
    for _ in range(3):
        await engine.settle(failed(row))
        await engine.cancels.retry(row["id"])
        [row] = await engine.claim(worker, row["id"])

    attempts = await engine.database.fetch("get_attempts", id=row["id"], at_most=2)
    job = await engine.database.fetch_one("get_job", id=row["id"])

    assert [attempt["fence"] for attempt in attempts] == [2, 3]
    assert {attempt["worker"] for attempt in attempts} == {"the worker"}
    assert job is not None
    assert (job["worker"], job["requires"]) == ("the worker", [])


# Output


async def test_a_piece_is_stored_once_and_answered_each_time(engine: Engine) -> None:
    worker = await engine.connect()
    row = await engine.running(worker)
    for _ in range(2):
        engine.outputs.store(piece(row, b"\x00\xff", offset=0))
        engine.outputs.store(piece(row, b"more", offset=2))
        await engine.outputs.run_once()

    assert [(stream, offset, kept) for _, stream, offset, kept in worker.peer.pieces] == [
        (1, 0, True),
        (1, 2, True),
    ] * 2
    [whole] = await engine.database.fetch("get_whole_output", id=row["id"], fences=[row["fence"]])
    assert (whole["stream"], whole["bytes"]) == (1, b"\x00\xffmore")


async def test_a_piece_of_an_attempt_that_is_not_the_current_one_is_not_kept(engine: Engine) -> None:
    worker = await engine.connect()
    row, ended = await engine.running(worker), await engine.running(worker)
    await engine.settle(succeeded(ended))
    for stale in (
        {**row, "fence": 2},
        {**row, "token": 1},
        {**row, "id": 2**62},
        ended,
    ):
        engine.outputs.store(piece(stale, b"x"))
    await engine.outputs.run_once()

    assert [kept for *_, kept in worker.peer.pieces] == [False] * 4
    ids = [row["id"], ended["id"], 2**62]
    assert await engine.sql("SELECT 1 FROM job_output WHERE job_id = ANY($1)", ids) == []


async def test_stored_output_is_read_piece_by_piece_from_an_offset(engine: Engine) -> None:
    row = await engine.running(await engine.connect())
    for offset in range(0, 50, 10):
        engine.outputs.store(piece(row, b"0123456789", offset=offset))
        engine.outputs.store(piece(row, b"abcdefghij", offset=offset, stream=2))
    await engine.outputs.run_once()

    async def offsets(**about: Any) -> list[int]:
        values = {"id": row["id"], "fence": row["fence"], "stream": 1, "from_offset": 0, "pieces": 10, **about}
        return [each["byte_offset"] for each in await engine.database.fetch("get_output", **values)]

    assert await offsets() == [0, 10, 20, 30, 40]
    assert await offsets(pieces=2) == [0, 10]
    assert await offsets(from_offset=11, pieces=2) == [20, 30]
    assert await offsets(fence=2) == []
    whole = await engine.database.fetch("get_whole_output", id=row["id"], fences=[1, 2])
    assert {each["stream"]: len(each["bytes"]) for each in whole} == {1: 50, 2: 50}


# Workers


async def test_open_sessions_are_listed_with_what_they_run(engine: Engine) -> None:
    await engine.sql("UPDATE sessions SET closed_at = now(), closed_reason = 'ended' WHERE closed_at IS NULL")
    busy = await engine.connect(name="b", slots=3, labels=("gpu=1",), queues=("x", "y"))
    await engine.connect(name="a")
    gone = await engine.connect(name="c")
    await engine.running(busy)
    await engine.close(gone)

    workers = await engine.database.fetch("list_workers")

    assert [(row["name"], row["running_jobs"]) for row in workers] == [("a", 0), ("b", 1)]
    assert (workers[1]["slots"], workers[1]["labels"], workers[1]["queues"]) == (3, ["gpu=1"], ["x", "y"])
