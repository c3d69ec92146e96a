"""How fast the spool of a worker makes results durable and forgets them again."""

import select
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from orqestra._dispatch import Spool

# Bytes of a record -> how many: of a command that says nothing, of one that says little, and of one whose
# output fills both streams.
RECORDS = {80: 100_000, 500: 50_000, 2 << 20: 100}
# So many are on their way to the disk, as if all slots had ended something at once.
WINDOW_BYTES = 4 << 20
WINDOW_RECORDS = 1000


@pytest.mark.benchmark(group="results made durable")
@pytest.mark.parametrize("record_bytes", RECORDS)
def test_spool(benchmark: BenchmarkFixture, tmp_path: Path, record_bytes: int) -> None:
    spool = Spool(tmp_path / "spool")
    count = RECORDS[record_bytes]
    window = max(1, min(WINDOW_RECORDS, WINDOW_BYTES // record_bytes))
    record = bytes(record_bytes)

    def run() -> None:
        written = durable = 0
        while durable < count:
            last = min(durable + window, count)
            spool.append([(key, record) for key in range(written, last)])
            written = last
            select.select([spool], [], [])
            keys, trouble = spool.take()
            assert trouble is None
            spool.delete(keys)
            durable += len(keys)

    benchmark.extra_info["jobs"] = count
    benchmark.pedantic(run, rounds=5, warmup_rounds=1)  # type: ignore[no-untyped-call]  # the library has no types
    spool.close()


@pytest.mark.benchmark(group="results made durable")
def test_spool_one_at_a_time(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")

    def run() -> None:
        for key in range(WINDOW_RECORDS):
            spool.append([(key, b"result")])
            select.select([spool], [], [])
            assert spool.take() == ([key], None)
            spool.delete([key])

    benchmark.extra_info["jobs"] = WINDOW_RECORDS
    benchmark.pedantic(run, rounds=5, warmup_rounds=1)  # type: ignore[no-untyped-call]  # the library has no types
    spool.close()
