"""The comparison in `benchmarks/README.md`, from the newest file of `benchmarks/results/peers/`."""

import json
from pathlib import Path
from typing import Any, Final

from benchmarks.commit import told
from benchmarks.peers.report import table

BENCHMARKS: Final = Path(__file__).resolve().parent.parent
PAGE: Final = BENCHMARKS / "README.md"
RESULTS: Final = BENCHMARKS / "results" / "peers"
BEGIN: Final = "<!-- peers: written by python -m benchmarks.peers -->"
END: Final = "<!-- end of peers -->"


def newest() -> Path | None:
    """Return the newest results; None if there are none yet."""
    return max(RESULTS.glob("*.json"), default=None, key=lambda path: path.name)


def page(text: str, results: Path | None) -> str:
    """Return the text of `benchmarks/README.md` with the comparison as it should be."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    comparison = "No results yet: `make bench-peers` measures.\n" if results is None else render(results)
    return f"{before}{BEGIN}\n\n{comparison}\n{END}{after}"


def render(results: Path) -> str:
    """Return everything between the markers."""
    document = json.loads(results.read_text())
    return f"{_setting(document, results.name)}\n{table(document)}"


def write() -> None:
    """Rewrite the page from the newest results."""
    PAGE.write_text(page(PAGE.read_text(), newest()))


def _setting(document: dict[str, Any], name: str) -> str:
    machine = document["machine"]
    versions = ", ".join(f"{program} {version}" for program, version in machine["versions"].items())
    # The oldest that is kept does not say.
    commit = told(document.get("commit"))
    return (
        f"[{name}](results/peers/{name}): {commit + ', ' if commit else ''}median of {document['rounds']} rounds on "
        f"{machine['cpus']} CPUs "
        f"({machine['cpu']}, {machine['system']}). {versions}.\n"
    )
