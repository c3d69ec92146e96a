"""Hints encoded, drained and regrouped, 1000 at a time: Rust beside its plain twin. In the full set a million too."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.measuring import Load, measure
from orqestra._dispatch import outbox
from tests.property.oracles import outbox as oracle
from tests.property.oracles.outbox import Entry

BATCH: Final = 1000
MILLION: Final = 1_000_000
ROWS: Final = 10
NOW_MS: Final = 1_700_000_000_000
# The twin takes many seconds.
MILLIONS: Final = {
    "rust": Load(unit="hints", count=MILLION, rounds=3),
    "python": Load(unit="hints", count=MILLION, rounds=1),
}
TWINS: Final = pytest.mark.parametrize("twin", ["rust", "python"])


@dataclass(frozen=True, kw_only=True)
class Input:
    """The same hints in each form that something takes them in."""

    entries: Sequence[Entry]
    columns: Sequence[list[int]]
    rows: Sequence[bytes]
    hints: bytes


def make(count: int) -> Input:
    entries = [
        Entry(id=number, lane=number % 20, priority=number % 10, due_ms=NOW_MS + number if number % 5 == 0 else 0)
        for number in range(count)
    ]
    return Input(
        entries=entries,
        columns=[list(column) for column in zip(*entries, strict=True)],
        rows=[oracle.encode(entries[start::ROWS]) for start in range(ROWS)],
        hints=b"".join(map(oracle.hint, entries)),
    )


def encode(twin: str, given: Input) -> Callable[[], object]:
    if twin == "rust":
        return lambda: outbox.encode(*given.columns)
    return lambda: oracle.encode(given.entries)


def drain(twin: str, given: Input) -> Callable[[], object]:
    drained: Any = outbox.drain if twin == "rust" else oracle.drain
    return lambda: drained(given.rows, NOW_MS, BATCH)


def regroup(twin: str, given: Input) -> Callable[[], object]:
    regrouped: Any = outbox.regroup if twin == "rust" else oracle.regroup
    return lambda: regrouped(given.hints, BATCH)


@TWINS
@pytest.mark.benchmark(group="outbox: encode 1000 hints")
def test_encode(benchmark: BenchmarkFixture, twin: str) -> None:
    benchmark.extra_info["hints"] = BATCH
    benchmark(encode(twin, make(BATCH)))


@TWINS
@pytest.mark.benchmark(group="outbox: drain 1000 hints of 10 rows")
def test_drain(benchmark: BenchmarkFixture, twin: str) -> None:
    benchmark.extra_info["hints"] = BATCH
    benchmark(drain(twin, make(BATCH)))


@TWINS
@pytest.mark.benchmark(group="outbox: regroup 1000 hints")
def test_regroup(benchmark: BenchmarkFixture, twin: str) -> None:
    benchmark.extra_info["hints"] = BATCH
    benchmark(regroup(twin, make(BATCH)))


@TWINS
@pytest.mark.full
@pytest.mark.benchmark(group="outbox: drain 1,000,000 hints of 10 rows")
def test_drain_a_million(benchmark: BenchmarkFixture, twin: str) -> None:
    measure(benchmark, MILLIONS[twin], drain(twin, make(MILLION)))


@TWINS
@pytest.mark.full
@pytest.mark.benchmark(group="outbox: regroup 1,000,000 hints")
def test_regroup_a_million(benchmark: BenchmarkFixture, twin: str) -> None:
    measure(benchmark, MILLIONS[twin], regroup(twin, make(MILLION)))
