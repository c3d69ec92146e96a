"""What people see of a benchmark."""

import io
import sys
from typing import Any

import pytest

from orqestra.bench.progress import Unseen
from orqestra.bench.report import Latencies, Report, Usage, Verdict
from orqestra.cli.bench_view import Bar, print_report, progress_bar

SOME = Latencies(p50=1.0, p95=2.0, p99=3.0, p999=4.0, max=1234.56)


def lines(capsys: pytest.CaptureFixture[str], **fields: Any) -> dict[str, str]:
    """Print a report; return what stands behind each name."""
    defaults: dict[str, Any] = {
        "scenario": "throughput",
        "jobs": 1000,
        "seconds": 2.0,
        "limits_per_s": (900.0, 1100.0),
        "limit_of": "jobs/s by something",
        "latencies": SOME,
        "processes": (),
        "verdict": Verdict(),
        "settings": {"workers": 2},
        "machine": {"cpus": 2, "cpu": None, "machine": "x86_64"},
        "versions": {"python": "3.11.7"},
    }
    print_report(Report(**{**defaults, **fields}))
    found = [line.split("  ", 1) for line in capsys.readouterr().out.splitlines() if "  " in line]
    return {name.strip(): text.strip() for name, text in found}


def test_every_figure_stands_behind_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    shown = lines(capsys)

    assert shown["jobs"] == "1,000 in 2.00 s"
    assert shown["limit"] == "1,000 jobs/s by something"
    assert shown["ratio"] == "0.500 of the limit"
    assert shown["latency"].endswith("max 1,234.6 ms")
    assert (shown["settings"], shown["versions"]) == ("workers 2", "python 3.11.7")


def test_what_a_scenario_has_besides_is_shown_part_by_part(capsys: pytest.CaptureFixture[str]) -> None:
    more = {"batch_jobs_per_s": 12345.6, "ratio_to_batch": 0.1234, "loaded": {"30": SOME, "70": None}}

    shown = lines(capsys, more=more)

    assert (shown["batch jobs per s"], shown["ratio to batch"]) == ("12,346", "0.123")
    assert (shown["loaded 30"], shown["loaded 70"]) == (shown["latency"], "-")


def test_where_nothing_was_measured_nothing_is_claimed(capsys: pytest.CaptureFixture[str]) -> None:
    shown = lines(capsys, limits_per_s=None, latencies=None)

    assert (shown["limit"], shown["latency"]) == ("-", "-")
    assert "ratio" not in shown


def test_processes_are_shown_with_what_they_took_of_a_job(capsys: pytest.CaptureFixture[str]) -> None:
    shown = lines(capsys, processes=[Usage(name="server", cpu_s=0.5, rss_mb=81.4)])

    assert shown["server"].split() == ["0.50", "500", "81"]


class Terminal(io.StringIO):
    """Stands for stderr on a terminal."""

    def isatty(self) -> bool:
        return True


def test_on_a_terminal_a_bar_shows_what_is_done_and_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")

    with progress_bar() as progress:
        assert isinstance(progress, Bar)
        progress.begin("jobs done", 1000)
        progress.reached(400)

    assert "jobs done" in terminal.getvalue()
    assert "400/1000" in terminal.getvalue()


def test_where_nobody_looks_no_bar_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.StringIO()
    monkeypatch.setattr(sys, "stderr", output)

    with progress_bar() as progress:
        assert isinstance(progress, Unseen)
        progress.begin("jobs done", 1000)

    assert output.getvalue() == ""
