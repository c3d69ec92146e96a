"""How often the handlers ran: what the programs' counters (`programs/counter.py`) wrote into a folder."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PAGE: Final = struct.Struct("<Qd")


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The handlers' runs in all processes together. `first_at` is on the monotonic clock; 0 before the first."""

    jobs: int
    processes: int
    first_at: float

    @classmethod
    def read(cls, folder: Path) -> "Counts":
        """Return what the files of a folder say now; one that is not yet whole says nothing."""
        pages = list(_pages(folder))
        return cls(
            jobs=sum(jobs for jobs, _ in pages),
            processes=len(pages),
            first_at=min((first_at for _, first_at in pages), default=0.0),
        )


def _pages(folder: Path) -> Iterator[tuple[int, float]]:
    for path in folder.iterdir():
        page = path.read_bytes()
        if len(page) == PAGE.size:
            jobs, first_at = PAGE.unpack(page)
            if jobs:
                yield jobs, first_at
