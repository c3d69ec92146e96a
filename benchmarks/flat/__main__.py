"""`python -m benchmarks.flat CASE... --out FILE`: measure, print a line for each case, write the figures."""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.flat.cases import CASES, Options
from benchmarks.flat.report import Comparison
from orqestra.bench.machine import machine, versions
from orqestra.log import configure

DEFAULTS = Options(
    jobs=20_000,
    rounds=5,
    finished_rows=5_000_000,
    hold_minutes=10.0,
    waiting=1_000_000,
    few_waiting=10_000,
    old_rows=1_000_000,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases that are named, or all; return 1 if one of them is not flat."""
    given = _parser().parse_args(arguments)
    configure("warning", "auto")
    options = Options(**{name: getattr(given, name) for name in vars(DEFAULTS)})
    found: list[Comparison] = []
    for name in given.cases:
        found.append(asyncio.run(CASES[name](options)))
        print(found[-1].line(), flush=True)
        # After each, since the next one may take long.
        if given.out is not None:
            given.out.write_text(json.dumps(document(options, found), indent=1) + "\n")
    return 0 if all(each.holds for each in found) else 1


def document(options: Options, found: Sequence[Comparison]) -> dict[str, Any]:
    """Return everything as JSON has it."""
    return {
        "machine": machine(),
        "versions": versions(),
        "options": vars(options),
        "cases": [each.document() for each in found],
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flat", description=__doc__)
    parser.add_argument("cases", nargs="+", choices=CASES, metavar="CASE", help=f"one or several of {', '.join(CASES)}")
    for name, default in vars(DEFAULTS).items():
        option = "--" + name.replace("_", "-")
        parser.add_argument(option, type=type(default), default=default, help="default: %(default)s")
    parser.add_argument("--out", type=Path, help="the file for the figures, as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
