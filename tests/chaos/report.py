"""What a run of the matrix found: as JSON, and as the table in docs/reliability.md."""

import json
import os
import platform
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
DOCUMENT: Final = ROOT / "docs" / "reliability.md"
RESULTS: Final = ROOT / "docs" / "reliability.json"
BEGIN: Final = "<!-- matrix -->"
END: Final = "<!-- /matrix -->"


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """One run of one cell. `violations` says in words what did not hold; `ok` is whether all did."""

    point: str
    victim: str
    seed: int
    hit: bool
    acked: int = 0
    lost: int = 0
    unexpected: int = 0
    recovered: int = 0
    extra_starts: int = 0
    recovery_s: float | None = None
    bound_s: float
    violations: tuple[str, ...] = ()
    figures: dict[str, float] = field(default_factory=dict)
    """What a cell measured besides."""

    @property
    def ok(self) -> bool:
        """Whether the fault struck and every promise held."""
        return self.hit and not self.violations


def summary(results: Iterable[CellResult], *, seed: int, seconds: float) -> dict[str, Any]:
    """Return what is kept of a run: one entry for each cell, over all its runs."""
    cells: dict[tuple[str, str], list[CellResult]] = defaultdict(list)
    for result in results:
        cells[result.point, result.victim].append(result)
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": {"cpus": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()},
        "seed": seed,
        "seconds": round(seconds),
        "cells": [_entry(runs) for runs in cells.values()],
    }


def write(summarised: dict[str, Any], path: Path) -> None:
    """Keep a run as JSON."""
    path.write_text(json.dumps(summarised, indent=1) + "\n")


def render(summarised: dict[str, Any]) -> str:
    """Return the tables of a run as markdown: faults down, victims across."""
    parts = [_head(summarised)]
    sections: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for cell in summarised["cells"]:
        sections["kill" if re.match(r"K\d+ ", cell["point"]) else "faults"].append(cell)
    if sections["kill"]:
        parts.append(_matrix(sections["kill"]))
    if sections["faults"]:
        parts.append(_list(sections["faults"]))
    return "\n\n".join(parts)


def write_document(text: str) -> None:
    """Put the tables into docs/reliability.md, between its two marks."""
    document = DOCUMENT.read_text()
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def _entry(runs: Sequence[CellResult]) -> dict[str, Any]:
    times = sorted(run.recovery_s for run in runs if run.recovery_s is not None)
    recovery = {"p50": round(median(times), 2), "max": round(times[-1], 2)} if times else None
    figures = {name: value for run in runs for name, value in run.figures.items()}
    return {
        "point": runs[0].point,
        "victim": runs[0].victim,
        "runs": len(runs),
        "hit": sum(run.hit for run in runs),
        "acked": sum(run.acked for run in runs),
        "lost": sum(run.lost for run in runs),
        "unexpected": sum(run.unexpected for run in runs),
        "extra_starts": sum(run.extra_starts for run in runs),
        "recovery_s": recovery,
        "bound_s": runs[0].bound_s,
        **({"figures": figures} if figures else {}),
        "ok": all(run.ok for run in runs),
        **({"violations": [text for run in runs for text in run.violations]} if not all(r.ok for r in runs) else {}),
    }


def _head(summarised: dict[str, Any]) -> str:
    cells = summarised["cells"]
    machine = summarised["machine"]
    return (
        f"{len(cells)} cells, {sum(cell['runs'] for cell in cells)} runs in {summarised['seconds']} s on "
        f"{machine['cpus']} CPUs, seed {summarised['seed']}: "
        f"{sum(cell['acked'] for cell in cells)} submits acknowledged, {sum(cell['lost'] for cell in cells)} lost, "
        f"{sum(cell['unexpected'] for cell in cells)} unexpected; "
        f"{sum(cell['ok'] for cell in cells)} of {len(cells)} cells hold. {summarised.get('note', '')}".rstrip()
    )


def _matrix(cells: Sequence[dict[str, Any]]) -> str:
    victims = list(dict.fromkeys(cell["victim"] for cell in cells))
    points = list(dict.fromkeys(sorted((cell["point"] for cell in cells), key=_number)))
    found = {(cell["point"], cell["victim"]): cell for cell in cells}
    lines = [f"| point | {' | '.join(victims)} |", f"|---|{'---|' * len(victims)}"]
    lines += [
        f"| {point} | {' | '.join(_square(found.get((point, victim))) for victim in victims)} |" for point in points
    ]
    return "\n".join(lines)


def _list(cells: Sequence[dict[str, Any]]) -> str:
    lines = ["| fault | on | result | figures |", "|---|---|---|---|"]
    for cell in cells:
        figures = ", ".join(f"{name} {value:g}" for name, value in cell.get("figures", {}).items())
        lines.append(f"| {cell['point']} | {cell['victim']} | {_square(cell)} | {figures} |")
    return "\n".join(lines)


def _square(cell: dict[str, Any] | None) -> str:
    """Return a cell in a few characters: seconds to recover, and extra starts if there were any."""
    if cell is None:
        return ""
    if not cell["ok"]:
        return "**fails**" if cell["hit"] else "**not reached**"
    extra = f" +{cell['extra_starts']}" if cell["extra_starts"] else ""
    recovery = cell["recovery_s"]
    return f"{recovery['max']:g} s{extra}" if recovery else f"holds{extra}"


def _number(point: str) -> tuple[int, str]:
    found = re.match(r"K(\d+)", point)
    return (int(found.group(1)) if found else 0, point)


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()
