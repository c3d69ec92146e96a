"""The bars in benchmarks/README.md are those of the kept figures, which tell nothing of their maker."""

import json
from typing import Any

import pytest

from benchmarks import commit
from benchmarks.bars import page
from benchmarks.bars.bar import BARS, RUNS, STREAMS
from tests.house.test_benchmarks import PATH, texts

RATIO = "throughput, to the raw cycle"
P99 = "submit to start, idle, p99"
FILE = page.RESULTS / "latency.json"
MACHINE = {"cpus": 2, "cpu": "A CPU", "system": "Linux"}


def row(name: str, rounds: list[dict[str, Any]]) -> list[str]:
    """Return what the table has of a bar, whose run had these rounds."""
    [bar] = [bar for bar in BARS if bar.name == name]
    [document, *_] = rounds
    lines = page.table({bar.run: (FILE, {"rounds": rounds} if bar.run in RUNS else document)}).splitlines()
    [found] = [line for line in lines if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in found.strip("|").split("|")][1:]


def test_the_bars_are_those_of_what_is_kept() -> None:
    text = page.PAGE.read_text()

    assert page.page(text, page.kept()) == text, "run `python -m benchmarks.bars --render`"


def test_the_figures_tell_nothing_of_their_maker() -> None:
    for results in page.RESULTS.glob("*.json"):
        document = json.loads(results.read_text())
        assert [text for text in texts(document) if PATH.search(text)] == []
        assert results.stem in RUNS
        assert document.keys() == {"at", "commit", "rounds"}


def test_every_bar_has_its_row_and_says_if_nothing_is_kept() -> None:
    lines = page.table({}).splitlines()[2:]

    assert len(lines) == len(BARS) == len({bar.name for bar in BARS})
    assert all(line.endswith("| not measured |  |") for line in lines)


@pytest.mark.parametrize(
    ("ratios", "seen", "holds"), [([0.4, 0.5, 0.9], "0.5", "yes"), ([0.9, 0.4, 0.498], "0.498", "no")]
)
def test_what_was_seen_is_the_median_and_has_to_be_at_least_the_bar(ratios: list[float], seen: str, holds: str) -> None:
    assert row(RATIO, [{"ratio": ratio} for ratio in ratios]) == ["0.5", "0.75", seen, holds]


@pytest.mark.parametrize(("p99", "holds"), [(8.0, "yes"), (8.01, "no")])
def test_a_time_may_be_at_most_the_bar(p99: float, holds: str) -> None:
    found = row(P99, [{"latency_ms": {"p50": 1.0, "p99": p99}}])

    assert found == ["at most 8 ms", "5 ms", f"{p99:.3g} ms", holds]


def test_a_run_without_a_figure_was_not_measured() -> None:
    assert row(RATIO, [{"ratio": None}])[-2:] == ["not measured", ""]
    assert row("flat: held", [{"cases": [{"case": "finished", "ratio": 1.0}]}])[-2:] == ["not measured", ""]


def test_ratios_are_compared_with_what_was_kept_and_times_are_not() -> None:
    before: page.Kept = {
        "throughput": (FILE, {"rounds": [{"ratio": 0.8}]}),
        "latency": (FILE, {"rounds": [{"latency_ms": {"p50": 1.0, "p99": 2.0}}]}),
    }
    now: page.Kept = {
        **before,
        "throughput": (FILE, {"rounds": [{"ratio": 0.6}]}),
        "shell": (FILE, {"rounds": [{"ratio": 0.7, "jobs_per_s": 150.0, "xargs_per_s": 100.0}]}),
    }

    found = page.changes(now, before)

    assert [(change.name, change.before, change.now) for change in found] == [
        (RATIO, 0.8, 0.6),
        ("short commands, to bare threads", None, 0.7),
        ("short commands, to xargs -P2", None, 1.5),
    ]
    assert [change.is_worse(0.15) for change in found] == [True, False, False]


def test_figures_are_found_in_what_cases_streams_and_queues_have() -> None:
    cases = [{"case": "finished", "ratio": 0.5}, {"case": "held", "ratio": 0.95}]
    fleet = [
        {"streams": streams, "idle": {"server_share": share}, "bytes_per_stream": 41000.0, "latencies": {"p99": 60.0}}
        for streams, share in ((2, 0.9), (STREAMS, 0.123))
    ]
    peers = [{"peer": "PgQueuer", "ours_to_this": 9.0}, {"peer": "graphile-worker", "ours_to_this": 1.6}]

    assert row("flat: held", [{"cases": cases}])[-2:] == ["0.95", "yes"]
    assert row(f"{STREAMS} streams: idle server, of a core", [{"fleet": fleet}])[-2:] == ["12.3 %", "yes"]
    assert row(f"{STREAMS} streams: memory of each", [{"fleet": fleet}])[-2:] == ["41 kB", "yes"]
    assert row(f"{STREAMS} streams: submit to Assign, p99", [{"fleet": fleet}])[-2:] == ["60 ms", "no"]
    assert row("throughput, to graphile-worker", [{"lines": peers}])[-2:] == ["1.6", "yes"]


def test_the_matcher_is_a_rate_and_a_ratio_to_its_twin() -> None:
    group = "matcher: 1000 jobs, 20 sessions, 100 lanes"
    benchmarks = [
        {
            "group": group,
            "name": f"test_small_fleet_{name}",
            "extra_info": {"assignments": 1000},
            "stats": {"median": s},
        }
        for name, s in (("rust", 0.001), ("python", 0.030))
    ]

    assert row(group, [{"benchmarks": benchmarks}])[-2:] == ["1 M/s", "no"]
    assert row(f"{group}, to its twin", [{"benchmarks": benchmarks}])[-2:] == ["30", "yes"]


def test_the_sources_are_named_with_what_they_are_of() -> None:
    document = {"commit": {"id": "0123456789abcdef", "dirty": True}, "rounds": [{"machine": MACHINE}] * 3}

    assert commit.told(None) == ""
    assert page.sources({"latency": (FILE, document)}) == (
        "- latency: [latency.json](results/bars/latency.json), median of 3 rounds, commit 0123456789ab, with changes, "
        "on 2 CPUs (A CPU, Linux)\n"
    )
