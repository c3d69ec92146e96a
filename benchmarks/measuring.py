"""How a figure is measured: in rounds, by itself or beside something bare that runs in the very same rounds.

Machines drift, and this one may have other work: only what was measured in turns can be compared.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

from pytest_benchmark.fixture import BenchmarkFixture


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a round handles: so many of a unit (jobs, hints, commands, bytes ...)."""

    unit: str
    count: int
    rounds: int = 5


@dataclass(frozen=True, kw_only=True)
class Beside:
    """Something that does as much with nothing around it: what it is, and how many seconds it takes this time."""

    what: str
    seconds: Callable[[], float]


def timed(run: Callable[[], object]) -> float:
    """Return how many seconds it takes."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def measure(benchmark: BenchmarkFixture, load: Load, run: Callable[[], object]) -> Any:
    """Measure `run` and note how much it handles; return what its last round returned."""
    benchmark.extra_info[load.unit] = load.count
    return pedantic(benchmark)(run, rounds=load.rounds, warmup_rounds=1)


def compare(
    benchmark: BenchmarkFixture,
    load: Load,
    beside: Beside,
    run: Callable[..., object],
    prepare: Callable[[], Any] | None = None,
) -> None:
    """Measure `run`, in each round right after what it is compared with; note the part of that one's speed.

    `prepare` is not timed; what it returns is given to `run`.
    """
    bare: list[float] = []

    def set_up() -> tuple[tuple[Any, ...], dict[str, Any]]:
        arguments = () if prepare is None else (prepare(),)
        bare.append(beside.seconds())
        return arguments, {}

    pedantic(benchmark)(run, setup=set_up, rounds=load.rounds, warmup_rounds=1)
    benchmark.extra_info |= {load.unit: load.count, "beside": beside.what}
    if benchmark.enabled:
        ours: list[float] = statistics_of(benchmark).data
        bare = bare[-len(ours) :]
        ratio = median(theirs / our for our, theirs in zip(ours, bare, strict=True))
        benchmark.extra_info |= {"beside_s": median(bare), "ratio": ratio}


def pedantic(benchmark: BenchmarkFixture) -> Callable[..., Any]:
    """Return the method that pytest-benchmark gives no types."""
    method: Callable[..., Any] = benchmark.pedantic
    return method


def statistics_of(benchmark: BenchmarkFixture) -> Any:
    """Return what was measured, which pytest-benchmark gives no types either."""
    metadata: Any = benchmark.stats
    return metadata.stats
