"""Write the tables of `benchmarks/README.md` from the newest file in `benchmarks/results/`.

A benchmark that notes how many `jobs`, `commands` or `bytes` it handles becomes a rate, with a ratio if it
was measured beside something; one that notes `p50_ms` and `p99_ms` a latency; two of one group named
`rust` and `python` are set beside each other. What only the full set has comes from the newest full run.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from tools.benchmark_ratios import LANGUAGES, Document, label, language_of, twins

Row = tuple[str, ...]

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "benchmarks" / "README.md"
RESULTS: Final = ROOT / "benchmarks" / "results"
BEGIN: Final = "<!-- figures: written by tools/benchmark_tables.py -->"
END: Final = "<!-- end of figures -->"
RATES: Final = ("jobs", "commands", "starts", "bytes", "hints", "assignments", "delays", "lanes", "sessions", "rows")
LATENCIES: Final = ("p50_ms", "p99_ms")
MIB: Final = 1024 * 1024
COMMIT_CHARS: Final = 12
UNITS: Final = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
MILLION: Final = 1_000_000


def newest(results: Path = RESULTS) -> Path | None:
    """Return the newest results; None if there are none yet."""
    return max(results.glob("*.json"), default=None, key=lambda path: path.name)


def newest_full(results: Path = RESULTS) -> Path | None:
    """Return the newest results of a run of the full set; None if there are none yet."""
    full = (path for path in sorted(results.glob("*.json"), reverse=True) if _full_ones(_read(path)))
    return next(full, None)


def page(text: str, results: Path | None, full: Path | None = None) -> str:
    """Return the text of `benchmarks/README.md` with the figures as they should be."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    figures = "No results yet: `make bench` measures.\n" if results is None else render(results)
    if full is not None and full != results:
        figures += f"\n### Only in the full set\n\n{render(full, only_full=True)}"
    return f"{before}{BEGIN}\n\n{figures}\n{END}{after}"


def render(results: Path, *, only_full: bool = False) -> str:
    """Return a file of results as tables; with `only_full`, those benchmarks that the quick set has not."""
    document = _read(results)
    benchmarks = _full_ones(document) if only_full else document["benchmarks"]
    criterion = [] if only_full else document.get("criterion", [])
    level = "####" if only_full else "###"
    tables = (
        ("Throughput", ("", "each round", "a second", "slowest round, a second"), _rates(benchmarks)),
        ("Beside what is bare", ("", "a second", "beside", "a second there", "ratio"), _compared(benchmarks)),
        ("Latency", ("", "measured", "p50", "p99"), _latencies(benchmarks)),
        ("Rust beside its plain Python twin", ("", "Rust", "Python", "ratio", "Rust, a second"), _twins(benchmarks)),
        ("The crate alone", ("", "an iteration", "a second"), _criterion(criterion)),
    )
    parts = [
        _setting(document, results.name),
        *(_table(f"{level} {title}", head, rows) for title, head, rows in tables),
    ]
    return "\n".join(part for part in parts if part)


def main() -> None:
    """Rewrite the page if its figures have changed."""
    text = PAGE.read_text()
    rendered = page(text, newest(), newest_full())
    if rendered != text:
        PAGE.write_text(rendered)
        print(f"{PAGE.relative_to(ROOT)} written")


def _read(results: Path) -> Document:
    document: Document = json.loads(results.read_text())
    return document


def _full_ones(document: Document) -> list[Document]:
    return [each for each in document["benchmarks"] if each["extra_info"].get("full")]


def _setting(document: Document, name: str) -> str:
    commit, machine = document["commit_info"], document["machine_info"]
    changed = ", with changes" if commit["dirty"] else ""
    versions = ", ".join(f"{package} {version}" for package, version in document["versions"].items())
    return (
        f"[{name}](results/{name}): commit {commit['id'][:COMMIT_CHARS]}{changed}, on {machine['cpu']['count']} CPUs "
        f"({machine['cpu']['brand_raw']}, {machine['system']}). {versions}.\n"
    )


def _rates(benchmarks: Iterable[Document]) -> list[Row]:
    """Return those that handle so many of something and are compared with nothing."""
    rows = []
    for benchmark in benchmarks:
        unit, extra = _unit(benchmark), benchmark["extra_info"]
        if unit is None or "ratio" in extra or LATENCIES[0] in extra or language_of(benchmark) is not None:
            continue
        amounts = (extra[unit], _per_second(benchmark, "median"), _per_second(benchmark, "max"))
        rows.append((label(benchmark), *(_amount(amount, unit) for amount in amounts)))
    return rows


def _compared(benchmarks: Iterable[Document]) -> list[Row]:
    rows: list[Row] = []
    for benchmark in benchmarks:
        unit, extra = _unit(benchmark), benchmark["extra_info"]
        if unit is not None and "ratio" in extra:
            ours = _amount(_per_second(benchmark, "median"), unit)
            theirs = _amount(extra[unit] / extra["beside_s"], unit)
            rows.append((label(benchmark), ours, extra["beside"], theirs, f"{extra['ratio']:.2f}"))
    return rows


def _latencies(benchmarks: Iterable[Document]) -> list[Row]:
    return [
        (label(each), _amount(extra[unit], unit), *(f"{extra[name]:.2f} ms" for name in LATENCIES))
        for each in benchmarks
        if LATENCIES[0] in (extra := each["extra_info"]) and (unit := _unit(each)) is not None
    ]


def _twins(benchmarks: Iterable[Document]) -> list[Row]:
    rows = []
    for group, pair in twins(benchmarks).items():
        medians = [pair[language]["stats"]["median"] if language in pair else None for language in LANGUAGES]
        rust, python = medians
        ratio = f"{python / rust:.1f}" if rust and python else ""
        unit = _unit(pair["rust"]) if rust else None
        rate = _amount(_per_second(pair["rust"], "median"), unit) if unit else ""
        rows.append((group, *("" if each is None else _duration(each) for each in medians), ratio, rate))
    return rows


def _criterion(benchmarks: Iterable[Document]) -> list[Row]:
    return [
        (
            each["name"],
            _duration(each["median_s"]),
            _count(each["elements"] / each["median_s"]) if each["elements"] else "",
        )
        for each in benchmarks
    ]


def _unit(benchmark: Document) -> str | None:
    return next((unit for unit in RATES if unit in benchmark["extra_info"]), None)


def _per_second(benchmark: Document, statistic: str) -> float:
    unit = _unit(benchmark)
    assert unit is not None
    return float(benchmark["extra_info"][unit] / benchmark["stats"][statistic])


def _amount(number: float, unit: str) -> str:
    return f"{number / MIB:,.0f} MiB" if unit == "bytes" else f"{_count(number)} {unit}"


def _count(number: float) -> str:
    return f"{number / MILLION:,.1f} M" if number >= MILLION and number % MILLION else f"{number:,.0f}"


def _duration(seconds: float) -> str:
    for size, unit in UNITS:
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def _table(heading: str, head: Row, rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    rule = ("---", *("---:" for _ in head[1:]))
    return f"{heading}\n\n" + "".join(f"| {' | '.join(cells)} |\n" for cells in (head, rule, *rows))


if __name__ == "__main__":
    main()
