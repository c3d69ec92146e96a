"""Keep what is worth keeping of a benchmark run: `python -m tools.benchmark_results RAW.json [CRITERION_HOME]`.

Writes `benchmarks/results/<time>.json`: the file of pytest-benchmark without every single measurement
and without what tells of the machine's owner, with the versions of what was measured, and with what
criterion measured of the crate alone.
"""

import json
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from orqestra.embedded.postgres import find_binaries
from orqestra.embedded.redis import find_program
from tools import benchmark_criterion

Document = dict[str, Any]

RESULTS: Final = Path(__file__).resolve().parent.parent / "benchmarks" / "results"
COMMIT: Final = ("id", "time", "dirty")
MACHINE: Final = ("system", "machine")
CPU: Final = ("brand_raw", "count")
BENCHMARK: Final = ("group", "name", "param", "extra_info")
STATISTICS: Final = ("min", "q1", "median", "q3", "max", "mean", "stddev", "rounds", "iterations")
PACKAGES: Final = ("asyncpg", "grpcio", "hiredis", "redis", "uvloop")
# Enough for any of the figures, and no noise from one run to the next.
DIGITS: Final = 6
VERSION: Final = re.compile(r"\d+(\.\d+)+")


def trim(raw: Document, versions: Mapping[str, str]) -> Document:
    """Return what is kept of a run."""
    machine = raw["machine_info"]
    return {
        "datetime": raw["datetime"],
        "commit_info": _only(raw["commit_info"], COMMIT),
        "machine_info": {**_only(machine, MACHINE), "cpu": _only(machine["cpu"], CPU)},
        "versions": dict(versions),
        "benchmarks": [_benchmark(each) for each in raw["benchmarks"]],
        **({"criterion": [_criterion(each) for each in raw["criterion"]]} if "criterion" in raw else {}),
    }


def installed_versions() -> dict[str, str]:
    """Return the versions of all that has a part in the speed."""
    return {
        "python": platform.python_version(),
        "postgres": _told_by(str(find_binaries() / "postgres"), "--version"),
        "redis-server": _told_by(str(find_program()), "--version"),
        "rustc": _told_by("rustc", "--version"),
        **{package: version(package) for package in PACKAGES},
    }


def main(raw_file: Path, criterion_home: Path | None) -> None:
    """Trim the file of pytest-benchmark into a new one among the results."""
    raw = json.loads(raw_file.read_text())
    if criterion_home is not None:
        raw["criterion"] = benchmark_criterion.read(criterion_home)
    kept = trim(raw, installed_versions())
    # 2030-01-31T18:30:00.000120+00:00
    moment = raw["datetime"].partition(".")[0].replace("-", "").replace(":", "")
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{moment}Z.json"
    path.write_text(json.dumps(kept, indent=1) + "\n")
    print(f"{path.name} written")


def _benchmark(raw: Document) -> Document:
    stats = {name: _rounded(number) for name, number in _only(raw["stats"], STATISTICS).items()}
    extra_info = {name: _rounded(value) for name, value in raw["extra_info"].items()}
    return {**_only(raw, BENCHMARK), "extra_info": extra_info, "stats": stats}


def _criterion(raw: Document) -> Document:
    return {name: _rounded(value) for name, value in raw.items()}


def _only(document: Document, names: tuple[str, ...]) -> Document:
    return {name: document[name] for name in names if name in document}


def _rounded(value: Any) -> Any:
    """Return a figure with as many digits as are worth keeping, anything else as it is."""
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _told_by(*words: str) -> str:
    """Return the version in what a program says of itself: `rustc 1.94.0 (...)`, `Redis server v=6.2.5 ...`."""
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    found = VERSION.search(told)
    if found is None:
        raise SystemExit(f"{words[0]} tells no version: {told!r}")
    return found[0]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)  # noqa: PLR2004  the name, RAW, HOME
