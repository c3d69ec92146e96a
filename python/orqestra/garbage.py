"""How often the interpreter looks for garbage that counting references does not find."""

import gc
from typing import Final

# By default each 700 new objects are a collection, and every so often one that walks all that thousands of streams
# hold: with 1000 of them a seventh of a busy server's time. What is made for each job has no cycles.
COLLECT_AFTER: Final = (50_000, 10, 10)


def collect_seldom() -> None:
    """Have garbage looked for seldom in this process, and never in what has been there from the start."""
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
