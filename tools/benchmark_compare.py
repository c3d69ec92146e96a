"""Compare the ratios of a benchmark run with the last ones that were kept: `python -m tools.benchmark_compare`.

Of each ratio of the newest file in `benchmarks/results/` the one before it is looked for in the older
files, the newest first; one that is to something else is another ratio. One that is worse by more than
the tolerance is a warning; with `--strict` it is the exit code too. Times are never compared: machines
differ, and drift.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tools.benchmark_ratios import Document, besides, ratios

RESULTS: Final = Path(__file__).resolve().parent.parent / "benchmarks" / "results"
# What two runs of the same code differ by on a machine that has other work.
TOLERANCE: Final = 0.15


@dataclass(frozen=True, kw_only=True)
class Change:
    """One ratio, and the one before it: its value and the file that has it; None if there was none."""

    name: str
    now: float
    before: float | None
    source: str

    def is_worse(self, tolerance: float) -> bool:
        """Return whether it has got worse by more than this part."""
        return self.before is not None and self.now < self.before * (1 - tolerance)


def changes(newest: Document, older: Sequence[tuple[str, Document]]) -> list[Change]:
    """Return what became of every ratio; `older` are files by name, the newest first."""
    known: dict[tuple[str, str], tuple[float, str]] = {}
    for source, document in older:
        for name, ratio in ratios(document).items():
            known.setdefault((name, besides(document).get(name, "")), (ratio, source))
    found = []
    for name, ratio in ratios(newest).items():
        before, source = known.get((name, besides(newest).get(name, "")), (None, ""))
        found.append(Change(name=name, now=ratio, before=before, source=source))
    return found


def lines(found: Sequence[Change], tolerance: float) -> Iterator[str]:
    """Yield the table, and below it what has got worse."""
    width = max((len(change.name) for change in found), default=0)
    yield f"{'ratio':<{width}}  {'before':>8}  {'now':>8}  change"
    for change in found:
        mark = "  WORSE" if change.is_worse(tolerance) else ""
        before = "" if change.before is None else f"{change.before:.2f}"
        moved = "new" if change.before is None else f"{change.now / change.before - 1:+.0%}"
        yield f"{change.name:<{width}}  {before:>8}  {change.now:>8.2f}  {moved:>6}{mark}"
    for change in found:
        if change.is_worse(tolerance):
            yield f"warning: {change.name} was {change.before:.2f} in {change.source} and is {change.now:.2f}"


def main(arguments: Sequence[str]) -> int:
    """Print the comparison; return the exit code."""
    parser = argparse.ArgumentParser(description="Compare the ratios of a benchmark run with the last ones kept.")
    parser.add_argument("results", type=Path, nargs="?", help="the file to look at  [default: the newest]")
    parser.add_argument(
        "--tolerance", type=float, default=TOLERANCE, help="how much worse is a warning  [default: %(default)s]"
    )
    parser.add_argument("--strict", action="store_true", help="exit with 1 if there is a warning")
    options = parser.parse_args(arguments)
    files = sorted(RESULTS.glob("*.json"), reverse=True)
    newest: Path | None = options.results or next(iter(files), None)
    if newest is None:
        print("No results yet: `make bench` measures.")
        return 0
    older = [(file.name, json.loads(file.read_text())) for file in files if file.name < newest.name]
    found = changes(json.loads(newest.read_text()), older)
    print("\n".join(lines(found, options.tolerance)))
    return int(options.strict and any(change.is_worse(options.tolerance) for change in found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
