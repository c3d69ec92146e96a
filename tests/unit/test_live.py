"""Which live chunk comes next, also behind a gap; how what waits to be said on a lane is joined."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orqestra.model.errors import InvalidInput
from orqestra.model.limits import OUTPUT_HEAD_BYTES, OUTPUT_TAIL_BYTES
from orqestra.model.live import LiveChunk
from orqestra.rpc.lane import PORTION_BYTES, WINDOW_BYTES, Lane
from orqestra.v1.worker_pb2 import AttemptRef, Follow

HEAD, TAIL = OUTPUT_HEAD_BYTES, OUTPUT_TAIL_BYTES
PLACES = st.integers(0, 4 * (HEAD + TAIL))


def chunk(offset: int, total: int) -> LiveChunk:
    return LiveChunk(job_id=1, fence=1, stream=1, offset=offset, total=total, data=b"x")


@given(position=PLACES, offset=PLACES, more=PLACES)
def test_a_gap_is_passed_only_where_nothing_is_kept(position: int, offset: int, more: int) -> None:
    total = offset + 1 + more
    kept = [(0, min(HEAD, total)), (max(0, total - TAIL), total)]
    is_lost = all(max(position, begin) >= min(offset, end) for begin, end in kept)

    assert chunk(offset, total).follows(position) is is_lost


def test_a_worker_that_tells_no_total_fills_no_gap() -> None:
    assert chunk(5, 0).follows(5)
    assert not chunk(HEAD + 1, 0).follows(HEAD)


def wish(job_id: int, offset: int = 0, *, stop: bool = False) -> Follow:
    return Follow(attempt=AttemptRef(job_id=job_id, fence=1), stdout_offset=offset, stderr_offset=9, stop=stop)


async def said(lane: Lane, count: int) -> list[Follow]:
    messages = [await lane.next_message() for _ in range(count)]
    return [message.follow for message in messages if message is not None]


async def test_wishes_for_one_attempt_are_joined() -> None:
    lane = Lane()
    lane.follow(wish(1, 5))
    lane.follow(wish(2))
    lane.follow(wish(1, 7))

    assert await said(lane, 2) == [wish(2), wish(1, 5)]


async def test_the_last_word_counts() -> None:
    lane = Lane()
    for job_id, last in ((1, True), (2, False)):
        lane.follow(wish(job_id, 5, stop=not last))
        lane.follow(wish(job_id, 6, stop=last))

    assert await said(lane, 2) == [wish(1, 6, stop=True), wish(2, 6)]


async def test_what_came_is_granted_again_in_portions() -> None:
    lane = Lane()
    first = await lane.next_message()
    assert first is not None
    assert first.credit.bytes == WINDOW_BYTES

    lane.took(PORTION_BYTES - 1)
    lane.took(1)
    again = await lane.next_message()
    assert again is not None
    assert again.credit.bytes == PORTION_BYTES


async def test_more_than_was_granted_is_refused() -> None:
    lane = Lane()
    with pytest.raises(InvalidInput, match="0 were granted"):
        lane.took(1)


async def test_a_lane_that_has_ended_says_nothing_more() -> None:
    lane = Lane()
    lane.follow(wish(1))
    lane.end()
    assert await lane.next_message() is None
