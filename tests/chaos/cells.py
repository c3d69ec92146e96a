"""All cells of the matrix."""

from tests.chaos.cell import Cell
from tests.chaos.commit_cells import commit_cells
from tests.chaos.crowd_cells import crowd_cells
from tests.chaos.disaster_cells import disaster_cells
from tests.chaos.kill_cells import kill_cells
from tests.chaos.logs_cells import logs_cells
from tests.chaos.network_cells import network_cells
from tests.chaos.postgres_cells import postgres_cells
from tests.chaos.redis_cells import redis_cells


def all_cells() -> list[Cell]:
    """Return every cell of the three tables."""
    return [
        *kill_cells(),
        *redis_cells(),
        *postgres_cells(),
        *commit_cells(),
        *disaster_cells(),
        *network_cells(),
        *logs_cells(),
        *crowd_cells(),
    ]


def subset() -> list[Cell]:
    """Return those that every run of the tests has, the ones of one shape after each other."""
    return sorted((cell for cell in all_cells() if cell.subset), key=lambda cell: repr(cell.shape))
