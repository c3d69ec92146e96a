"""1000 delays: Rust beside plain Python with floats (the oracle's exact fractions would flatter Rust)."""

from collections.abc import Callable

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from orqestra._dispatch import backoff
from tests.property.oracles import backoff as oracle

BATCH = 1000
ATTEMPTS = [1 + number % 12 for number in range(BATCH)]
SEEDS = list(range(BATCH))


def rust() -> list[int]:
    return backoff.delays([1000] * BATCH, [2.0] * BATCH, [300_000] * BATCH, ATTEMPTS, ["full"] * BATCH, SEEDS)


def python() -> list[int]:
    return [
        oracle.jittered(int(min(300_000, 1000 * 2.0 ** (attempt - 1))), seed)
        for attempt, seed in zip(ATTEMPTS, SEEDS, strict=True)
    ]


@pytest.mark.benchmark(group="backoff: 1000 delays")
@pytest.mark.parametrize("delays", [rust, python])
def test_delays(benchmark: BenchmarkFixture, delays: Callable[[], list[int]]) -> None:
    benchmark.extra_info["delays"] = BATCH
    assert benchmark(delays) == rust()
