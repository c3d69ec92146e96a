"""The bars in `benchmarks/README.md`, from what is kept of each run."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.bars.bar import BARS, MICRO, PEERS, RUNS, Bar, Document
from benchmarks.commit import told
from benchmarks.peers import page as peers_page
from tools import benchmark_tables
from tools.benchmark_compare import Change

BENCHMARKS: Final = Path(__file__).resolve().parent.parent
PAGE: Final = BENCHMARKS / "README.md"
RESULTS: Final = BENCHMARKS / "results" / "bars"
BEGIN: Final = "<!-- bars: written by python -m benchmarks.bars -->"
END: Final = "<!-- end of bars -->"
HEAD: Final = ("bar", "at least", "aim", "seen", "holds")

# What is kept of each run: its file, and what is in it.
Kept = Mapping[str, tuple[Path, Document]]


def kept(results: Path = RESULTS) -> Kept:
    """Return what is kept of each run, the newest; what never was is not in it."""
    files: dict[str, Path | None] = {run: results / f"{run}.json" for run in RUNS}
    files |= {MICRO: benchmark_tables.newest(), PEERS: peers_page.newest()}
    return {run: (path, json.loads(path.read_text())) for run, path in files.items() if path and path.exists()}


def page(text: str, found: Kept) -> str:
    """Return the text of `benchmarks/README.md` with the bars as they should be."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table(found)}\n{sources(found)}\n{END}{after}"


def table(found: Kept) -> str:
    """Return the bars as a Markdown table."""
    rows = [HEAD, ("---", *("---:" for _ in HEAD[1:])), *(_row(bar, found) for bar in BARS)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def sources(found: Kept) -> str:
    """Return which files the figures are from; what was run for the bars alone with its commit and machine."""
    return "".join(
        f"- {run}: [{path.name}]({path.relative_to(BENCHMARKS)}){_setting(document) if run in RUNS else ''}\n"
        for run, (path, document) in found.items()
    )


def changes(now: Kept, before: Kept) -> list[Change]:
    """Return what became of the ratios among the bars of the runs in `now`; times of another day say nothing."""
    found = []
    for bar in BARS:
        if bar.unit or bar.run not in now or (seen := _seen(bar, now)) is None:
            continue
        found.append(Change(name=bar.name, now=seen, before=_seen(bar, before), source="what was kept"))
    return found


def write() -> None:
    """Rewrite the page from what is kept."""
    PAGE.write_text(page(PAGE.read_text(), kept()))


def _row(bar: Bar, found: Kept) -> tuple[str, ...]:
    seen = _seen(bar, found)
    least = f"at most {_figure(bar, bar.bar)}" if bar.less_is_better else _figure(bar, bar.bar)
    head = (bar.name, least, "" if bar.aim is None else _figure(bar, bar.aim))
    if seen is None:
        return (*head, "not measured", "")
    return (*head, _figure(bar, seen), "yes" if bar.holds(seen) else "no")


def _seen(bar: Bar, found: Kept) -> float | None:
    return bar.seen(_rounds(bar.run, found[bar.run][1])) if bar.run in found else None


def _rounds(run: str, document: Document) -> Sequence[Document]:
    rounds: Sequence[Document] = document["rounds"] if run in RUNS else [document]
    return rounds


def _figure(bar: Bar, number: float) -> str:
    return f"{number:.3g}{bar.unit}"


def _setting(document: Document) -> str:
    rounds, machine = document["rounds"], document["rounds"][0]["machine"]
    times = "one round" if len(rounds) == 1 else f"median of {len(rounds)} rounds"
    where = f"on {machine['cpus']} CPUs ({machine['cpu']}, {machine['system']})"
    return "".join(f", {part}" for part in (times, told(document["commit"]), where) if part)
