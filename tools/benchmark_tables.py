"""Write the tables of `benchmarks/README.md` from the newest file in `benchmarks/results/`.

A benchmark that notes how many `jobs`, `commands` or `bytes` it handles becomes a rate, one that notes
`p50_ms` and `p99_ms` a latency; two of one group named `rust` and `python` are set beside each other.
"""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

Document = dict[str, Any]
Row = tuple[str, ...]

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "benchmarks" / "README.md"
RESULTS: Final = ROOT / "benchmarks" / "results"
BEGIN: Final = "<!-- figures: written by tools/benchmark_tables.py -->"
END: Final = "<!-- end of figures -->"
RATES: Final = ("jobs", "commands", "bytes")
LATENCIES: Final = ("p50_ms", "p99_ms")
LANGUAGES: Final = ("rust", "python")
MIB: Final = 1024 * 1024
COMMIT_CHARS: Final = 12
UNITS: Final = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def newest() -> Path | None:
    """Return the newest results; None if there are none yet."""
    return max(RESULTS.glob("*.json"), default=None, key=lambda path: path.name)


def page(text: str, results: Path | None) -> str:
    """Return the text of `benchmarks/README.md` with the figures as they should be."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    figures = "No results yet: `make bench` measures.\n" if results is None else render(results)
    return f"{before}{BEGIN}\n\n{figures}\n{END}{after}"


def render(results: Path) -> str:
    """Return everything between the markers."""
    document = json.loads(results.read_text())
    benchmarks = document["benchmarks"]
    parts = [
        _setting(document, results.name),
        _table("Throughput", ("", "each round", "a second", "slowest round, a second"), _rates(benchmarks)),
        _table("Latency", ("", "measured", "p50", "p99"), _latencies(benchmarks)),
        _table("Rust beside its plain Python twin", ("", "Rust", "Python", "ratio"), _twins(benchmarks)),
    ]
    return "\n".join(part for part in parts if part)


def main() -> None:
    """Rewrite the page if its figures have changed."""
    text = PAGE.read_text()
    rendered = page(text, newest())
    if rendered != text:
        PAGE.write_text(rendered)
        print(f"{PAGE.relative_to(ROOT)} written")


def _setting(document: Document, name: str) -> str:
    commit, machine = document["commit_info"], document["machine_info"]
    changed = ", with changes" if commit["dirty"] else ""
    versions = ", ".join(f"{package} {version}" for package, version in document["versions"].items())
    return (
        f"[{name}](results/{name}): commit {commit['id'][:COMMIT_CHARS]}{changed}, on {machine['cpu']['count']} CPUs "
        f"({machine['cpu']['brand_raw']}, {machine['system']}). {versions}.\n"
    )


def _rates(benchmarks: Iterable[Document]) -> list[Row]:
    rows = []
    for benchmark in benchmarks:
        extra, stats = benchmark["extra_info"], benchmark["stats"]
        unit = next((unit for unit in RATES if unit in extra), None)
        if unit is not None and LATENCIES[0] not in extra:
            amounts = (extra[unit], extra[unit] / stats["median"], extra[unit] / stats["max"])
            rows.append((_label(benchmark), *(_amount(amount, unit) for amount in amounts)))
    return rows


def _latencies(benchmarks: Iterable[Document]) -> list[Row]:
    return [
        (each["group"], _amount(extra["jobs"], "jobs"), *(f"{extra[name]:.2f} ms" for name in LATENCIES))
        for each in benchmarks
        if LATENCIES[0] in (extra := each["extra_info"])
    ]


def _twins(benchmarks: Iterable[Document]) -> list[Row]:
    groups: dict[str, dict[str, float]] = {}
    for benchmark in benchmarks:
        for language in LANGUAGES:
            if language in re.split(r"[^a-z]+", benchmark["name"]):
                groups.setdefault(benchmark["group"], {})[language] = benchmark["stats"]["median"]
    return [(group, *_compared(medians)) for group, medians in groups.items()]


def _compared(medians: dict[str, float]) -> Row:
    rust, python = (medians.get(language) for language in LANGUAGES)
    ratio = f"{python / rust:.1f}" if rust and python else ""
    return *("" if seconds is None else _duration(seconds) for seconds in (rust, python)), ratio


def _label(benchmark: Document) -> str:
    """Return `group: name, parameter`, in plain words."""
    name, _, parameter = benchmark["name"].removeprefix("test_").partition("[")
    words = ", ".join(part for part in (name.replace("_", " "), parameter.rstrip("]")) if part)
    return f"{benchmark['group']}: {words}" if benchmark["group"] else words


def _amount(number: float, unit: str) -> str:
    return f"{number / MIB:,.0f} MiB" if unit == "bytes" else f"{number:,.0f} {unit}"


def _duration(seconds: float) -> str:
    for size, unit in UNITS:
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def _table(title: str, head: Row, rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    rule = ("---", *("---:" for _ in head[1:]))
    return f"### {title}\n\n" + "".join(f"| {' | '.join(cells)} |\n" for cells in (head, rule, *rows))


if __name__ == "__main__":
    main()
