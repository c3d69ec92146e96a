"""The tables of benchmarks/README.md are those of the newest results, which tell nothing of their maker."""

import getpass
import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools import benchmark_results, benchmark_tables

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
            "extra_info": {},
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
            "group": "submit to end, idle",
            "name": "test_latency",
            "extra_info": {"jobs": 200, "p50_ms": 2.5, "p99_ms": 10.25},
            "stats": {"median": 1.0, "max": 1.0},
        },
    ],
}


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
    return benchmark_results.trim(RAW, {"python": "3.11.7"})


def test_the_tables_are_those_of_the_newest_results() -> None:
    text = benchmark_tables.PAGE.read_text()

    assert benchmark_tables.page(text, benchmark_tables.newest()) == text, "run `python tools/benchmark_tables.py`"


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
    assert "| submit to end, idle | 200 jobs | 2.50 ms | 10.25 ms |" in lines
    assert "| outbox: encode | 12.3 µs | 123 µs | 10.0 |" in lines
    assert len([line for line in lines if line.startswith("### ")]) == 3
