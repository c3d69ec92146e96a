"""The runner itself: which cells share a cluster."""

from typing import Final

from tests.chaos.cell import Cell, Stage
from tests.chaos.nodes import Shape
from tests.chaos.runner import run_cells

SMALL: Final = Shape(workers=1)


async def test_a_cell_that_is_alone_finds_nothing_of_those_before_it() -> None:
    jobs_before = []

    async def look(stage: Stage) -> None:
        jobs_before.append(await stage.last_job())
        stage.fault()
        await stage.recovered()

    def cell(*, alone: bool) -> Cell:
        return Cell(point="a look", victim="nobody", act=look, bound_seconds=10.0, shape=SMALL, quiet=True, alone=alone)

    cells = [cell(alone=False), cell(alone=False), cell(alone=True)]
    results = await run_cells(cells, seed=1, tell=lambda _: None)

    assert [result.violations for result in results] == [()] * len(results)
    first, second, alone = jobs_before
    # All that there was is what made the lane known.
    assert first == alone
    assert second > first
