"""`backoff` against exact fractions."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orqestra._dispatch import backoff
from tests.property.oracles import backoff as oracle

LARGEST = 2**63 - 1
DAY_MS = 86_400_000


class Row(NamedTuple):
    base_ms: int
    factor: float
    cap_ms: int
    attempt: int
    jitter: str
    seed: int


seed = st.integers(-LARGEST - 1, LARGEST)
jitter = st.sampled_from(["full", "equal", "none"])
row = st.builds(
    Row,
    base_ms=st.integers(0, DAY_MS),
    factor=st.integers(4, 400).map(lambda quarters: quarters / 4),
    cap_ms=st.integers(0, DAY_MS),
    attempt=st.integers(1, 60),
    jitter=jitter,
    seed=seed,
)


@given(st.lists(row, max_size=20))
def test_ceilings_grow_by_the_factor_up_to_the_cap(rows: list[Row]) -> None:
    ceilings = backoff.ceilings(*_policy_columns(rows))
    for row, ceiling in zip(rows, ceilings, strict=True):
        expected = oracle.ceiling(row.base_ms, row.factor, row.cap_ms, row.attempt)
        # A float may land on the other side of an integer than the exact product.
        assert abs(ceiling - expected) <= 1


@given(st.lists(row, max_size=20))
def test_delays_are_the_ceilings_jittered_by_their_seeds(rows: list[Row]) -> None:
    columns = _policy_columns(rows)
    ceilings = backoff.ceilings(*columns)
    expected = [oracle.jittered(ceiling, row.seed, row.jitter) for ceiling, row in zip(ceilings, rows, strict=True)]
    assert backoff.delays(*columns, [row.jitter for row in rows], [row.seed for row in rows]) == expected


@given(
    st.builds(
        Row,
        base_ms=st.integers(0, LARGEST),
        factor=st.floats(1.0, allow_nan=False),
        cap_ms=st.integers(0, LARGEST),
        attempt=st.integers(1, LARGEST),
        jitter=jitter,
        seed=seed,
    )
)
def test_no_input_overflows(row: Row) -> None:
    columns = _policy_columns([row])
    (ceiling,) = backoff.ceilings(*columns)
    (delay,) = backoff.delays(*columns, [row.jitter], [row.seed])
    assert 0 <= delay <= ceiling <= row.cap_ms
    assert (ceiling == 0) == (row.base_ms == 0 or row.cap_ms == 0)


def test_delays_fill_the_whole_range_evenly() -> None:
    rows = 20_000
    delays = backoff.delays([9] * rows, [1.0] * rows, [9] * rows, [1] * rows, ["full"] * rows, range(rows))
    counts = [delays.count(delay) for delay in range(10)]
    assert sum(counts) == rows
    assert all(1800 < count < 2200 for count in counts), counts


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        (([1], [2.0], [3], [1, 2]), "attempts: 2 values, but base_ms has 1"),
        (([1, -1], [2.0, 2.0], [3, 3], [1, 1]), "row 1: base_ms: -1 must be 0 or more"),
        (([1], [0.5], [3], [1]), "row 0: factor: 0.5 must be 1 or more"),
        (([1], [float("nan")], [3], [1]), "row 0: factor: NaN must be 1 or more"),
        (([1], [2.0], [-3], [1]), "row 0: cap_ms: -3 must be 0 or more"),
        (([1], [2.0], [3], [0]), "row 0: attempt: 0 must be 1 or more"),
    ],
)
def test_what_is_not_allowed_is_named(
    columns: tuple[list[int], list[float], list[int], list[int]], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        backoff.ceilings(*columns)


def test_a_jitter_that_is_not_known_is_named() -> None:
    with pytest.raises(ValueError, match='row 1: jitter: "some" is not one of full, equal and none'):
        backoff.delays([1] * 2, [2.0] * 2, [3] * 2, [1] * 2, ["none", "some"], [0] * 2)


def _policy_columns(rows: list[Row]) -> tuple[list[int], list[float], list[int], list[int]]:
    return (
        [row.base_ms for row in rows],
        [row.factor for row in rows],
        [row.cap_ms for row in rows],
        [row.attempt for row in rows],
    )
