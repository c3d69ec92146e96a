"""Runs the matrix: `python -m tests.chaos matrix`, see --help. `make chaos` and `make chaos-soak` call it."""

import asyncio
import random
import sys
import time
from pathlib import Path

import click

from tests.chaos import report
from tests.chaos.bars import bars, run_bar
from tests.chaos.cells import all_cells
from tests.chaos.report import CellResult
from tests.chaos.runner import run_cells
from tests.chaos.soak import healthy, nemesis

COLUMN = 58
# Of what a cell found broken, so much is printed; all of it is in the JSON.
SHOWN = 4


@click.group()
def main() -> None:
    """Hurt a cluster in every way that docs/reliability.md lists, and check what it promises."""


@main.command()
@click.option("--only", default="", metavar="TEXT", help="Only cells whose name, POINT/VICTIM, has this in it.")
@click.option("--subset", is_flag=True, help="Only the cells that every run of the tests has.")
@click.option("--runs", default=1, show_default=True, type=click.IntRange(1), help="How often each cell is run.")
@click.option("--seed", type=int, help="Replay what was left to chance in an earlier run.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the results there.")
@click.option("--document", is_flag=True, help="Keep the results, and write the tables into docs/reliability.md.")
@click.option("--keep", type=click.Path(path_type=Path), help="Copy logs and journal of failed cells into this folder.")
def matrix(
    *,
    only: str,
    subset: bool,
    runs: int,
    seed: int | None,
    json_file: Path | None,
    document: bool,
    keep: Path | None,
) -> None:
    """Run each cell of the tables."""
    seed = random.SystemRandom().randrange(1_000_000) if seed is None else seed
    cells = [cell for cell in all_cells() if only in cell.name and (cell.subset or not subset)]
    print(f"{len(cells)} cells, {runs} run(s) each, --seed {seed}", flush=True)
    began = time.monotonic()
    results = [
        result for run in range(runs) for result in asyncio.run(run_cells(cells, seed=seed + run, tell=tell, keep=keep))
    ]
    if not subset:
        for bar in (bar for bar in bars() if only in bar.name):
            results.append(asyncio.run(run_bar(bar)))
            tell(results[-1])
    summarised = report.summary(results, seed=seed, seconds=time.monotonic() - began)
    if json_file is not None:
        report.write(summarised, json_file)
    if document and not only:
        report.write(summarised, report.RESULTS)
        report.write_document(report.render(summarised))
    failed = [result for result in results if not result.ok]
    print(f"{len(results) - len(failed)} of {len(results)} runs hold, {time.monotonic() - began:.0f} s", flush=True)
    sys.exit(bool(failed))


@main.command()
@click.option("--minutes", type=float, default=10.0, show_default=True)
@click.option("--healthy", "is_healthy", is_flag=True, help="No faults: nothing may have to be repaired.")
@click.option("--seed", type=int, help="Strike as in an earlier run.")
@click.option("--keep", type=click.Path(path_type=Path), help="Copy logs and journal of failed cells into this folder.")
def soak(*, minutes: float, is_healthy: bool, seed: int | None, keep: Path | None) -> None:
    """Strike at random for a while."""
    seed = random.SystemRandom().randrange(1_000_000) if seed is None else seed
    print(f"{minutes:g} minutes, --seed {seed}", flush=True)
    if is_healthy:
        results = [asyncio.run(healthy(minutes, seed=seed, tell=tell, keep=keep))]
    else:
        results = asyncio.run(nemesis(all_cells(), minutes, seed=seed, tell=tell, keep=keep))
    failed = [result for result in results if not result.ok]
    acked, lost = sum(result.acked for result in results), sum(result.lost for result in results)
    print(f"{len(results) - len(failed)} of {len(results)} rounds hold; {acked} submits acknowledged, {lost} lost")
    sys.exit(bool(failed))


def tell(result: CellResult) -> None:
    """Print one line for a run, and what was wrong with it."""
    name = f"{result.point} / {result.victim}"
    recovery = "" if result.recovery_s is None else f"{result.recovery_s:5.2f} s of {result.bound_s:g}"
    verdict = "ok  " if result.ok else "FAIL"
    extra = f" +{result.extra_starts} starts" if result.extra_starts else ""
    print(f"{verdict} {name:{COLUMN}} {recovery:14} acked {result.acked}{extra}", flush=True)
    if result.figures:
        print("     " + ", ".join(f"{name} {value:g}" for name, value in result.figures.items()), flush=True)
    if not result.hit:
        print("     the point was not reached", flush=True)
    for violation in result.violations[:SHOWN]:
        print(f"     {violation}", flush=True)
    if len(result.violations) > SHOWN:
        print(f"     and {len(result.violations) - SHOWN} more", flush=True)


if __name__ == "__main__":
    main()
