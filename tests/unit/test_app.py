"""How a server process is set up."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from orqestra.garbage import COLLECT_AFTER, collect_seldom


class Knot:
    """Garbage that only the collector finds."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def collector() -> Iterator[None]:
    """The collector of this process, as it was afterwards."""
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


@pytest.mark.usefixtures("collector")
def test_garbage_is_collected_seldom_but_collected() -> None:
    collect_seldom()
    knot = weakref.ref(Knot())

    assert knot() is not None
    kept: list[list[int]] = [[] for _ in range(2 * COLLECT_AFTER[0])]

    assert knot() is None
    assert kept


@pytest.mark.usefixtures("collector")
def test_what_is_there_from_the_start_is_passed_over() -> None:
    collect_seldom()

    assert gc.get_freeze_count() > 10_000
    assert len(gc.get_objects()) < gc.get_freeze_count()
