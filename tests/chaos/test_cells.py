"""A part of the matrix in every run of the tests: `make chaos` runs all of it."""

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.chaos.cell import Cell
from tests.chaos.cells import subset
from tests.chaos.runner import Warm

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def warm(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Warm]:
    async with Warm(keep=Path(tmp_path_factory.mktemp("chaos"))) as warm:
        yield warm


@pytest.mark.parametrize("cell", subset(), ids=lambda cell: cell.name)
async def test_what_is_promised_holds(warm: Warm, cell: Cell) -> None:
    seed = random.SystemRandom().randrange(1_000_000)

    result = await warm.run(cell, seed=seed)

    assert result.hit, f"{cell.name} --seed {seed} did not get to its point"
    assert not result.violations, f"{cell.name} --seed {seed}"
