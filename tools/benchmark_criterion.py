"""What criterion measured of the crate alone, read from the folder that CRITERION_HOME named."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

NANOSECOND: Final = 1e-9


def read(home: Path) -> list[dict[str, Any]]:
    """Return each benchmark with its median, and how many elements one iteration handles; sorted by name."""
    return sorted(_read(home), key=lambda each: str(each["name"]))


def _read(home: Path) -> Iterator[dict[str, Any]]:
    for folder in home.glob("*/*/new"):
        about = json.loads((folder / "benchmark.json").read_text())
        estimates = json.loads((folder / "estimates.json").read_text())
        throughput: dict[str, int] = about["throughput"] or {}
        yield {
            "name": about["full_id"].replace("/", ": ", 1),
            "elements": throughput.get("Elements"),
            "median_s": estimates["median"]["point_estimate"] * NANOSECOND,
        }
