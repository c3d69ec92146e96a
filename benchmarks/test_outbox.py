"""1000 hints encoded, drained and regrouped: Rust beside its plain twin."""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from orqestra._dispatch import outbox
from tests.property.oracles import outbox as oracle
from tests.property.oracles.outbox import Entry

BATCH = 1000
ROWS = 10
NOW_MS = 1_700_000_000_000

ENTRIES = [
    Entry(id=number, lane=number % 20, priority=number % 10, due_ms=NOW_MS + number if number % 5 == 0 else 0)
    for number in range(BATCH)
]
COLUMNS = [list(column) for column in zip(*ENTRIES, strict=True)]
ENCODED = [oracle.encode(ENTRIES[start::ROWS]) for start in range(ROWS)]
HINTS = b"".join(oracle.hint(entry) for entry in ENTRIES)


@pytest.mark.benchmark(group="outbox: encode 1000 hints")
def test_encode_rust(benchmark: BenchmarkFixture) -> None:
    ids, lanes, priorities, due_ms = COLUMNS
    benchmark(outbox.encode, ids, lanes, priorities, due_ms)


@pytest.mark.benchmark(group="outbox: encode 1000 hints")
def test_encode_python(benchmark: BenchmarkFixture) -> None:
    benchmark(oracle.encode, ENTRIES)


@pytest.mark.benchmark(group="outbox: drain 1000 hints of 10 rows")
def test_drain_rust(benchmark: BenchmarkFixture) -> None:
    benchmark(outbox.drain, ENCODED, NOW_MS, 1000)


@pytest.mark.benchmark(group="outbox: drain 1000 hints of 10 rows")
def test_drain_python(benchmark: BenchmarkFixture) -> None:
    benchmark(oracle.drain, ENCODED, NOW_MS, 1000)


@pytest.mark.benchmark(group="outbox: regroup 1000 hints")
def test_regroup_rust(benchmark: BenchmarkFixture) -> None:
    benchmark(outbox.regroup, HINTS, 1000)


@pytest.mark.benchmark(group="outbox: regroup 1000 hints")
def test_regroup_python(benchmark: BenchmarkFixture) -> None:
    benchmark(oracle.regroup, HINTS, 1000)
