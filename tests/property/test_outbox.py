"""`outbox` against struct, a dict and sorted()."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orqestra._dispatch import Push, outbox
from tests.property.oracles import outbox as oracle
from tests.property.oracles.outbox import Entry

NOW_MS = 1_700_000_000_000
DUE_MAX_MS = 9_999_999_999_999

# Few ids, lanes and times, so that they collide; and the extremes.
entry = st.builds(
    Entry,
    id=st.integers(0, 40) | st.integers(0, 2**63 - 1),
    lane=st.integers(0, 4) | st.integers(0, 2**31 - 1),
    priority=st.integers(0, 9),
    due_ms=st.just(0) | st.integers(NOW_MS - 2, NOW_MS + 3) | st.integers(0, DUE_MAX_MS),
)
rows = st.lists(st.lists(entry, max_size=30), max_size=8)
max_hints = st.integers(1, 20) | st.just(1000)


@given(st.lists(entry, max_size=50))
def test_encode_writes_what_sql_writes(entries: list[Entry]) -> None:
    assert _encode(entries) == oracle.encode(entries)


@given(rows, max_hints)
def test_drain_groups_deduplicates_and_chunks(rows: list[list[Entry]], max_hints: int) -> None:
    encoded = [oracle.encode(row) for row in rows]
    pushes = outbox.drain(encoded, NOW_MS, max_hints)
    assert [_plain(push) for push in pushes] == oracle.drain(encoded, NOW_MS, max_hints)


@given(st.lists(entry, max_size=50), max_hints)
def test_regroup_makes_pushes_of_what_goes_back(entries: list[Entry], max_hints: int) -> None:
    hints = b"".join(oracle.hint(entry) for entry in entries)
    assert [_plain(push) for push in outbox.regroup(hints, max_hints)] == oracle.regroup(hints, max_hints)
    assert outbox.ids(hints) == [entry.id for entry in entries]


def test_a_large_drain_keeps_every_job() -> None:
    row = _encode([Entry(id=number, lane=number % 7, priority=number % 10, due_ms=0) for number in range(5000)])
    pushes = outbox.drain([row] * 3, NOW_MS)
    assert [len(push.ready) // 25 for push in pushes] == [1000] * 5
    assert sorted(number for push in pushes for number in outbox.ids(push.ready)) == list(range(5000))


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        (([1, 2], [1], [1, 1], [0, 0]), "lanes: 1 values, but ids has 2"),
        (([1, 2], [1, 1], [1], [0, 0]), "priorities: 1 values, but ids has 2"),
        (([1, 2], [1, 1], [1, 1], []), "due_ms: 0 values, but ids has 2"),
        (([1, -2], [1, 1], [1, 1], [0, 0]), "ids[1]: -2 must be from 0 to"),
        (([1], [2**31], [1], [0]), "lanes[0]: 2147483648 must be from 0 to 2147483647"),
        (([1], [1], [10], [0]), "priorities[0]: 10 must be from 0 to 9"),
        (([1], [1], [1], [DUE_MAX_MS + 1]), "due_ms[0]: 10000000000000 must be"),
    ],
)
def test_encode_names_what_is_wrong(columns: tuple[list[int], ...], problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        outbox.encode(*columns)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (b"x" * 23, "rows[1]: 23 bytes, must be a multiple of 22"),
        (oracle.encode([Entry(1, 1, 10, 0)]), "rows[1], entry 0: priority 10 must be from 0 to 9"),
        (oracle.encode([Entry(1, 1, 1, 0), Entry(1, 1, -1, 0)]), "rows[1], entry 1: priority -1 must be"),
        (oracle.encode([Entry(-1, 1, 1, 0)]), "rows[1], entry 0: id -1 must be"),
        (oracle.encode([Entry(1, -1, 1, 0)]), "rows[1], entry 0: lane -1 must be"),
        (oracle.encode([Entry(1, 1, 1, DUE_MAX_MS + 1)]), "rows[1], entry 0: due_ms 10000000000000 must be"),
    ],
)
def test_a_malformed_row_is_named(row: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        outbox.drain([b"", row], NOW_MS)


def test_other_input_that_is_refused() -> None:
    with pytest.raises(ValueError, match="max_hints: 0 must be 1 or more"):
        outbox.drain([], NOW_MS, 0)
    with pytest.raises(ValueError, match=re.escape("hints[1]:")):
        outbox.ids(b"0000000c50000000000000abc0000000c50000000000000ABC")


def _encode(entries: list[Entry]) -> bytes:
    return outbox.encode(
        [entry.id for entry in entries],
        [entry.lane for entry in entries],
        [entry.priority for entry in entries],
        [entry.due_ms for entry in entries],
    )


def _plain(push: Push) -> oracle.Push:
    return oracle.Push(ready=push.ready, delayed=push.delayed, lanes=push.lanes)
