"""Measures what the bars are about: `python -m benchmarks.bars [RUN...]`, see --help. `make bars` calls it."""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from benchmarks.bars import page
from benchmarks.bars.bar import LONG, RUNS, Document
from benchmarks.commit import commit
from tools import benchmark_compare

# How a run that is no scenario of `orqestra bench` is told where its figures go.
FILE_OPTION = {"flat": "--out", "fleet": "--json"}


@click.command()
@click.argument("runs", nargs=-1, type=click.Choice(list(RUNS)), metavar="[RUN]...")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="Of each run but flat and fleet.")
@click.option("--keep", type=click.Path(path_type=Path, file_okay=False, exists=True), help="Keep the figures there.")
@click.option("--render", is_flag=True, help="Measure nothing: write the table from what is kept.")
def main(*, runs: tuple[str, ...], rounds: int, keep: Path | None, render: bool) -> None:
    """Measure what the bars are about, keep the figures and write the table into benchmarks/README.md.

    A RUN is one of throughput, single, latency, backlog, delayed and shell, all of which are run if none is
    named, or flat or fleet. What is a ratio is compared with what was kept before, and what got worse is warned of.
    With --keep the table is only printed.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    results = keep or page.RESULTS
    before = page.kept(results)
    failed = False
    for run in () if render else runs or [run for run in RUNS if run not in LONG]:
        found = measure(run, 1 if run in LONG else rounds)
        failed |= not found
        if found:
            results.mkdir(parents=True, exist_ok=True)
            document = {"at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", "commit": commit(), "rounds": found}
            (results / f"{run}.json").write_text(json.dumps(document, indent=1) + "\n")
    now = page.kept(results)
    print(page.table(now), end="")
    changed = page.changes({run: now[run] for run in now if now[run] != before.get(run)}, before)
    if changed:
        print("\n".join(("", *benchmark_compare.lines(changed, benchmark_compare.TOLERANCE))))
    if keep is None:
        page.write()
    click.get_current_context().exit(int(failed))


def measure(run: str, rounds: int) -> list[Document]:
    """Return the figures of each round of a run; none if one of them failed."""
    found: list[Document] = []
    for number in range(1, rounds + 1):
        print(f"{run}: round {number} of {rounds}", file=sys.stderr, flush=True)
        document = figures(run)
        if document is None:
            print(f"{run} failed: what was kept of it stays", file=sys.stderr)
            return []
        found.append(document)
    return found


def figures(run: str) -> Document | None:
    """Run it once; return what it wrote, or None if it wrote nothing or a job was lost."""
    with tempfile.TemporaryDirectory(prefix="orqestra-bars-") as directory:
        path = Path(directory) / "figures.json"
        option = (FILE_OPTION[run], str(path)) if run in LONG else ("--embedded", "--json")
        with path.open("wb") as output:
            code = end_of([sys.executable, "-m", *RUNS[run], *option], None if run in LONG else output.fileno())
        text = path.read_text()
    # A case that is not flat is an exit code too, but a figure.
    is_good = bool(text) and (code == 0 or run == "flat")
    return json.loads(text) if is_good else None


def end_of(command: Sequence[str], output: int | None) -> int:
    """Run a command to its end; one that is interrupted with us still removes what it has started."""
    process = subprocess.Popen(command, stdout=output, start_new_session=True)
    try:
        return process.wait()
    except BaseException:
        process.send_signal(signal.SIGINT)
        process.wait()
        raise


if __name__ == "__main__":
    main()
