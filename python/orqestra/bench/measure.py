"""What every scenario does around its load: the limit right before and right after, and who took what."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from orqestra.bench import processes
from orqestra.bench.processes import Root
from orqestra.bench.report import Usage

Result = TypeVar("Result")

# Measures what the machine can do at best, a second; None where that is not known.
Limit = Callable[[], Awaitable[float | None]]


@dataclass(frozen=True, kw_only=True)
class Measured(Generic[Result]):
    """What a load returned, and what was measured around it."""

    result: Result
    limits_per_s: tuple[float, float] | None
    processes: Sequence[Usage]


async def beside_limit(
    limit: Limit, roots: Callable[[], Sequence[Root]], load: Callable[[], Awaitable[Result]]
) -> Measured[Result]:
    """Measure the limit, run the load, measure the limit again: machines drift.

    `roots` are asked for once the load is over, while all of them still run.
    """
    before = await limit()
    looked = processes.look()
    result = await load()
    usages = processes.usages(roots(), looked, processes.look())
    after = await limit()
    return Measured(
        result=result,
        limits_per_s=None if before is None or after is None else (before, after),
        processes=usages,
    )
