"""The tables of benchmarks/README.md are those of the newest results, which tell nothing of their maker; ratios are
compared with those before them."""

import copy
import getpass
import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tools import benchmark_compare, benchmark_criterion, benchmark_results, benchmark_tables
from tools.benchmark_ratios import ratios

RESULTS = sorted(benchmark_tables.RESULTS.glob("*.json"))
# A path from the root, in text of any kind: /home/somebody, file:///work.
PATH = re.compile(r"(?<![\w.])/[a-z]+/")
RAW: dict[str, Any] = {
    "datetime": "2030-01-31T18:30:00.000120+00:00",
    "machine_info": {
        "node": "secret-host",
        "system": "Linux",
        "machine": "x86_64",
        "release": "6.18.44-secret",
        "cpu": {"brand_raw": "A CPU", "count": 2, "flags": ["sse"]},
    },
    "commit_info": {"id": "0123456789abcdef", "time": "2030-01-31", "dirty": False, "project": "/home/secret"},
    "benchmarks": [
        {
            "group": "outbox: encode",
            "name": f"test_encode_{language}",
            "fullname": "benchmarks/test_outbox.py",
            "params": {"function": "<function at 0x7fea0e4b2660>"},
            "param": None,
            "extra_info": {"hints": 1000},
            "stats": {"median": seconds, "max": 2 * seconds, "data": [seconds, 2 * seconds]},
        }
        for language, seconds in (("rust", 0.0000123456789), ("python", 0.0001234))
    ]
    + [
        {
            "group": "end to end",
            "name": "test_noop_jobs",
            "extra_info": {"jobs": 20_000},
            "stats": {"median": 2.0, "max": 4.0},
        },
        {
            "group": "store",
            "name": "test_statement[claim-1000 a statement]",
            "extra_info": {"jobs": 1000, "beside": "UPDATE", "beside_s": 0.005, "ratio": 0.51, "full": True},
            "stats": {"median": 0.01, "max": 0.02},
        },
        {
            "group": "submit to end, idle",
            "name": "test_latency",
            "extra_info": {"jobs": 200, "p50_ms": 2.5, "p99_ms": 10.25},
            "stats": {"median": 1.0, "max": 1.0},
        },
        {
            "group": "from the Assign to the program",
            "name": "test_start[alone]",
            "extra_info": {"starts": 100, "p50_ms": 0.5, "p99_ms": 1.0, "beside": "posix_spawn", "scheduled": "alone"},
            "stats": {"median": 1.0, "max": 1.0},
        },
    ],
    "criterion": [{"name": "matcher: assign", "elements": 1000, "median_s": 0.00002}],
}
EMPTY = f"{benchmark_tables.BEGIN}\n{benchmark_tables.END}"


def texts(value: object) -> Iterator[str]:
    """Yield every text in a JSON document, names too."""
    match value:
        case str():
            yield value
        case dict():
            for name, each in value.items():
                yield from (name, *texts(each))
        case list():
            for each in value:
                yield from texts(each)


def kept() -> dict[str, Any]:
    return copy.deepcopy(benchmark_results.trim(RAW, {"python": "3.11.7"}))


def statement(document: dict[str, Any]) -> dict[str, Any]:
    """Return the benchmark that was measured beside another."""
    found: list[dict[str, Any]] = [each for each in document["benchmarks"] if each["group"] == "store"]
    return found[0]


def test_the_tables_are_those_of_the_newest_results() -> None:
    text = benchmark_tables.PAGE.read_text()

    rendered = benchmark_tables.page(text, benchmark_tables.newest(), benchmark_tables.newest_full())

    assert rendered == text, "run `python -m tools.benchmark_tables`"


def test_results_tell_nothing_of_their_maker() -> None:
    names = {socket.gethostname(), getpass.getuser(), os.path.expanduser("~")} - {"root", "localhost"}

    for results in RESULTS:
        document = json.loads(results.read_text())
        assert [text for text in texts(document) if PATH.search(text) or text in {"data", "node", *names}] == []
        assert benchmark_results.trim(document, document["versions"]) == document


def test_what_is_kept_is_the_figures() -> None:
    document = kept()

    assert "secret" not in json.dumps(document)
    assert document["commit_info"] == {"id": "0123456789abcdef", "time": "2030-01-31", "dirty": False}
    assert document["machine_info"]["cpu"] == {"brand_raw": "A CPU", "count": 2}
    assert document["benchmarks"][0]["stats"] == {"median": 0.0000123457, "max": 0.0000246914}


def test_the_tables_have_rates_latencies_and_ratios(tmp_path: Path) -> None:
    results = tmp_path / "20300131T183000Z.json"
    results.write_text(json.dumps(kept()))

    lines = benchmark_tables.render(results).splitlines()

    assert lines[0].startswith("[20300131T183000Z.json](results/20300131T183000Z.json): commit 0123456789ab, on 2 CPUs")
    assert "| end to end: noop jobs | 20,000 jobs | 10,000 jobs | 5,000 jobs |" in lines
    assert "| store: statement, claim, 1000 a statement | 100,000 jobs | UPDATE | 200,000 jobs | 0.51 |" in lines
    assert "| submit to end, idle: latency | 200 jobs | 2.50 ms | 10.25 ms |" in lines
    assert "| from the Assign to the program: start, alone | 100 starts | 0.50 ms | 1.00 ms |" in lines
    assert "| outbox: encode | 12.3 µs | 123 µs | 10.0 | 81.0 M hints |" in lines
    assert "| matcher: assign | 20 µs | 50.0 M |" in lines
    assert len([line for line in lines if line.startswith("### ")]) == 5


def test_what_only_the_full_set_has_comes_from_its_newest_run(tmp_path: Path) -> None:
    full, quick = tmp_path / "20300131T183000Z.json", tmp_path / "20300201T183000Z.json"
    document = kept()
    full.write_text(json.dumps(document))
    quick.write_text(json.dumps({**document, "benchmarks": document["benchmarks"][:2]}))

    text = benchmark_tables.page(EMPTY, benchmark_tables.newest(tmp_path), benchmark_tables.newest_full(tmp_path))

    before, _, after = text.partition("### Only in the full set")
    assert quick.name in before and full.name not in before
    assert full.name in after
    assert "outbox" in before and "outbox" not in after
    assert "store" in after and "store" not in before


def test_ratios_are_those_of_twins_and_of_what_was_measured_beside_another() -> None:
    assert ratios(kept()) == {
        "store: statement, claim, 1000 a statement": 0.51,
        "outbox: encode": pytest.approx(9.99, abs=0.01),
    }


def test_a_ratio_is_compared_with_the_newest_before_it_that_has_one() -> None:
    newest, quick, older = kept(), kept(), kept()
    statement(quick)["extra_info"].pop("ratio")
    statement(older)["extra_info"]["ratio"] = 0.7

    found = benchmark_compare.changes(newest, [("quick", quick), ("older", older), ("oldest", kept())])

    assert [(change.name, change.before, change.source) for change in found if change.source == "older"] == [
        ("store: statement, claim, 1000 a statement", 0.7, "older")
    ]
    assert [change.is_worse(0.15) for change in found] == [True, False]
    assert "warning: store: statement, claim, 1000 a statement was 0.70 in older and is 0.51" in "\n".join(
        benchmark_compare.lines(found, 0.15)
    )


def test_a_ratio_to_something_else_is_not_compared() -> None:
    newest, older = kept(), kept()
    statement(older)["extra_info"] |= {"beside": "a faster thing", "ratio": 5.0}

    found = benchmark_compare.changes(newest, [("older", older)])

    assert {change.name: change.before for change in found} == {
        "store: statement, claim, 1000 a statement": None,
        "outbox: encode": pytest.approx(9.99, abs=0.01),
    }


@pytest.mark.parametrize(("ratio", "is_worse"), [(0.8, False), (0.86, False), (0.84, True)])
def test_a_ratio_may_differ_by_the_tolerance(ratio: float, is_worse: bool) -> None:
    change = benchmark_compare.Change(name="it", now=ratio, before=0.8 if ratio == 0.8 else 1.0, source="a file")

    assert change.is_worse(0.15) is is_worse


def test_a_ratio_that_was_never_there_before_is_new() -> None:
    found = benchmark_compare.changes(kept(), [])

    assert not any(change.is_worse(0.0) for change in found)
    assert "new" in "\n".join(benchmark_compare.lines(found, 0.15))


@pytest.mark.parametrize(("options", "code"), [([], 0), (["--strict"], 1), (["--strict", "--tolerance", "0.5"], 0)])
def test_a_warning_is_an_exit_code_if_asked_for(
    options: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    older = kept()
    statement(older)["extra_info"]["ratio"] = 0.7
    (tmp_path / "20300131T183000Z.json").write_text(json.dumps(older))
    (tmp_path / "20300201T183000Z.json").write_text(json.dumps(kept()))
    monkeypatch.setattr(benchmark_compare, "RESULTS", tmp_path)

    assert benchmark_compare.main(options) == code
    assert "-27%" in capsys.readouterr().out


def test_criterion_is_read_from_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "matcher" / "assign" / "new"
    folder.mkdir(parents=True)
    (folder / "benchmark.json").write_text(json.dumps({"full_id": "matcher/assign", "throughput": {"Elements": 1000}}))
    (folder / "estimates.json").write_text(json.dumps({"median": {"point_estimate": 20_000.0}}))

    assert benchmark_criterion.read(tmp_path) == [
        {"name": "matcher: assign", "elements": 1000, "median_s": pytest.approx(2e-5)}
    ]
