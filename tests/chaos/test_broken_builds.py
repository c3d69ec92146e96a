"""The checker bites: builds with one mistake each are rejected, by the invariant that the mistake breaks."""

import pytest

from tests.chaos.broken import BUILDS
from tests.chaos.cells import all_cells
from tests.chaos.runner import Warm

# With it the transaction that the killed server had under way is not committed.
SEED = 2
# Where each mistake shows, and one of the invariants that name it.
BITES = {
    "no_fence": ("SIGSTOP, SIGCONT/worker", "I3"),
    "ack_before_commit": ("K13 result.before_commit/S", "starts"),
    "no_guard": ("hints doubled/Redis", "I4"),
    "advance_outside_tx": ("K19 workflow.after_advance_stmt_before_commit/R", "I7"),
    "attempt_as_fence": ("K10 worker.running/WX", "I4"),
}


def test_every_broken_build_has_its_cell() -> None:
    assert BITES.keys() == BUILDS.keys()


@pytest.mark.parametrize("build", BITES)
async def test_a_broken_build_is_rejected(build: str) -> None:
    name, invariant = BITES[build]
    cell = next(cell for cell in all_cells() if cell.name == name).of_build(build)

    async with Warm() as warm:
        result = await warm.run(cell, seed=SEED)

    assert result.hit
    assert any(text.startswith(f"{invariant},") for text in result.violations), result.violations
