"""What came out: a line for each entrant, as JSON has it and as a table shows it."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

# Orqestra against the fastest durable peer: what has to be reached, and the aim.
BAR_RATIO: Final = 1.5
AIM_RATIO: Final = 2.5
DIGITS: Final = 3
HEAD: Final = ("", "version", "store", "durable", "jobs", "end to end, a second", "drain, a second", "Orqestra is")


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The times of one round, in seconds."""

    seconds: float
    drain_seconds: float


@dataclass(frozen=True, kw_only=True)
class Line:
    """An entrant and its rounds: None for one that failed. `skipped` says why, or why it took no part."""

    name: str
    version: str
    store: str
    durable: bool
    settings: str
    notes: str
    jobs: int
    is_ours: bool = False
    rounds: tuple[Figures | None, ...] = ()
    skipped: str | None = None

    @property
    def good(self) -> list[Figures]:
        """The rounds that count."""
        return [figures for figures in self.rounds if figures is not None]

    @property
    def seconds(self) -> float:
        """The median of end to end."""
        return median(figures.seconds for figures in self.good)

    @property
    def jobs_per_s(self) -> float:
        """The median of end to end, as a rate."""
        return self.jobs / self.seconds

    @property
    def drain_per_s(self) -> float:
        """The median of drain, as a rate."""
        return self.jobs / median(figures.drain_seconds for figures in self.good)

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "peer": self.name,
            "version": self.version,
            "store": self.store,
            "durable": self.durable,
            "settings": self.settings,
            "jobs": self.jobs,
            "seconds": round(self.seconds, DIGITS) if self.good else None,
            "jobs_per_s": round(self.jobs_per_s) if self.good else None,
            "drain_per_s": round(self.drain_per_s) if self.good else None,
            "rounds_per_s": [round(self.jobs / figures.seconds) for figures in self.good],
            "notes": self.notes,
            "skipped": self.skipped,
        }


def fastest_durable(lines: Sequence[Line]) -> Line | None:
    """Return the peer to beat: the fastest of those that keep what was submitted; None if none took part."""
    peers = [line for line in lines if line.durable and line.good and not line.is_ours]
    return max(peers, key=lambda line: line.jobs_per_s, default=None)


def ratio(ours: Line, theirs: Line) -> float | None:
    """Return how many times as fast as theirs ours is end to end: the median of the rounds, each side by side."""
    ratios = [
        (ours.jobs / our.seconds) / (theirs.jobs / their.seconds)
        for our, their in zip(ours.rounds, theirs.rounds, strict=False)
        if our is not None and their is not None
    ]
    return median(ratios) if ratios else None


def document(lines: Sequence[Line], machine: dict[str, Any]) -> dict[str, Any]:
    """Return the whole run as JSON has it."""
    peer = fastest_durable(lines)
    ours = next((line for line in lines if line.is_ours), None)
    reached = ratio(ours, peer) if ours and peer else None
    ratios = {line.name: ratio(ours, line) if ours else None for line in lines if not line.is_ours}
    return {
        "lines": [
            line.document() | {"ours_to_this": None if (each := ratios.get(line.name)) is None else round(each, DIGITS)}
            for line in lines
        ],
        "fastest_durable_peer": peer.name if peer else None,
        "ratio": None if reached is None else round(reached, DIGITS),
        "bar": BAR_RATIO,
        "aim": AIM_RATIO,
        "machine": machine,
    }


def table(result: dict[str, Any]) -> str:
    """Return the lines of a run as a Markdown table, the fastest first, and what it says of the bar."""
    lines = sorted(result["lines"], key=lambda line: -(line["jobs_per_s"] or 0))
    rows = [HEAD, ("---", "---", "---", "---", *("---:" for _ in HEAD[4:])), *map(_row, lines)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows) + "\n" + verdict(result)


def verdict(result: dict[str, Any]) -> str:
    """Return the sentence about Orqestra and the fastest durable peer."""
    if result["ratio"] is None:
        return "Nothing to compare: Orqestra or every durable peer is missing.\n"
    is_reached = result["ratio"] >= result["bar"]
    return (
        f"Orqestra is {result['ratio']:.2f} times as fast end to end as {result['fastest_durable_peer']}, the fastest "
        f"durable peer; the bar of {result['bar']} is {'reached' if is_reached else 'missed'}, the aim is "
        f"{result['aim']}.\n"
    )


def _row(line: dict[str, Any]) -> tuple[str, ...]:
    durable = "yes" if line["durable"] else "no"
    head = (line["peer"], line["version"], line["store"], durable, f"{line['jobs']:,}")
    if line["jobs_per_s"] is None:
        return (*head, f"skipped: {line['skipped']}", "", "")
    times = "" if line["ours_to_this"] is None else f"{line['ours_to_this']:.1f} x"
    return (*head, f"{line['jobs_per_s']:,}", f"{line['drain_per_s']:,}", times)
