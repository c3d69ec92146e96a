"""What a benchmark makes of what it saw: quantiles, a report, accounts."""

import os
import subprocess
from collections.abc import Sequence
from typing import Any

import pytest

from orqestra._dispatch import spawn_limit
from orqestra.bench import processes
from orqestra.bench.processes import Account, Root
from orqestra.bench.report import Latencies, Report, Verdict, quantile

GONE = 10**9  # no pid is so large


def report(**fields: Any) -> Report:
    defaults: dict[str, Any] = {
        "scenario": "shell",
        "jobs": 1000,
        "seconds": 2.0,
        "limits_per_s": (900.0, 1100.0),
        "limit_of": "jobs/s",
        "latencies": None,
        "processes": (),
        "verdict": Verdict(),
        "settings": {},
        "machine": {},
        "versions": {},
    }
    return Report(**{**defaults, **fields})


@pytest.mark.parametrize(
    ("values", "part", "expected"),
    [
        ([7.0], 0.5, 7.0),
        ([1.0, 2.0], 0.5, 1.0),
        ([1.0, 2.0, 3.0], 0.5, 2.0),
        (list(map(float, range(1, 101))), 0.99, 99.0),
        (list(map(float, range(1, 1001))), 0.999, 999.0),
        ([1.0, 2.0], 0.999, 2.0),
        ([1.0, 2.0], 0.0, 1.0),
    ],
)
def test_a_quantile_is_one_of_the_values(values: Sequence[float], part: float, expected: float) -> None:
    assert quantile(values, part) == expected


def test_latencies_are_quantiles_in_ms_in_whatever_order_they_come() -> None:
    assert Latencies.of([0.003, 0.001, 0.002]) == Latencies(p50=2.0, p95=3.0, p99=3.0, p999=3.0, max=3.0)
    assert Latencies.of([]) is None


@pytest.mark.parametrize(
    ("counts", "is_good"), [({}, True), ({"lost": 1}, False), ({"duplicated": 1}, False), ({"failed": 1}, False)]
)
def test_figures_count_only_where_every_job_ran_once_and_well(counts: dict[str, int], is_good: bool) -> None:
    assert report(verdict=Verdict(**counts)).is_good is is_good


def test_a_document_has_the_speed_and_its_part_of_the_limit() -> None:
    document = report().document()

    assert (document["jobs_per_s"], document["limit_per_s"], document["ratio"]) == (500.0, 1000.0, 0.5)
    assert report(verdict=Verdict(lost=500)).document()["jobs_per_s"] == 250.0


def test_without_a_limit_there_is_no_ratio() -> None:
    document = report(limits_per_s=None).document()

    assert (document["limit_per_s"], document["limits_per_s"], document["ratio"]) == (None, None, None)
    assert report(limits_per_s=None).is_steady


def test_what_a_scenario_has_besides_stands_in_the_document_under_its_name() -> None:
    some = Latencies(p50=1.0, p95=2.0, p99=3.0, p999=4.0, max=5.00049)
    document = report(more={"ratio_to_batch": 0.12345, "loaded": {"30": some, "70": None}}).document()

    assert document["ratio_to_batch"] == 0.123
    assert document["loaded"] == {"30": {"p50": 1.0, "p95": 2.0, "p99": 3.0, "p999": 4.0, "max": 5.0}, "70": None}


@pytest.mark.parametrize(
    ("limits", "is_steady"), [((1000.0, 1000.0), True), ((1000.0, 1250.0), True), ((1260.0, 1000.0), False)]
)
def test_a_machine_that_has_other_work_is_noticed(limits: tuple[float, float], is_steady: bool) -> None:
    assert report(limits_per_s=limits).is_steady is is_steady


def test_cpu_goes_to_who_took_it_and_what_a_worker_waited_for_to_its_commands() -> None:
    per_second = processes.TICKS
    ourselves = os.getpid()
    before = {
        ourselves: Account(parent=1, own=per_second, children=0),
        GONE: Account(parent=ourselves, own=per_second, children=per_second),
        GONE + 1: Account(parent=GONE, own=0, children=0),
        GONE + 2: Account(parent=ourselves, own=0, children=0),
    }
    after = {
        ourselves: Account(parent=1, own=2 * per_second, children=9 * per_second),
        GONE: Account(parent=ourselves, own=4 * per_second, children=per_second),
        GONE + 1: Account(parent=GONE, own=2 * per_second, children=7 * per_second),
        GONE + 2: Account(parent=ourselves, own=per_second, children=per_second),
        GONE + 3: Account(parent=GONE + 1, own=5 * per_second, children=0),  # a command that still runs
        GONE + 4: Account(parent=GONE + 2, own=2 * per_second, children=0),  # a backend that is new
    }
    roots = [Root(name="worker-1", pid=GONE, runs_commands=True), Root(name="postgres", pid=GONE + 2)]

    found = processes.usages(roots, before, after)

    assert {usage.name: usage.cpu_s for usage in found} == {
        "worker-1": 3.0,
        "worker-1 supervisor": 2.0,
        "postgres": 4.0,
        "commands": 7.0,
        "bench": 1.0,
    }


def test_all_that_a_worker_has_is_counted_if_it_came_during_the_load() -> None:
    per_second = processes.TICKS
    ourselves = os.getpid()
    before = {ourselves: Account(parent=1, own=0, children=0)}
    after = {
        ourselves: Account(parent=1, own=0, children=0),
        GONE: Account(parent=ourselves, own=2 * per_second, children=0),
        GONE + 1: Account(parent=GONE, own=per_second, children=0),
    }

    found = processes.usages([Root(name="worker-1", pid=GONE, runs_commands=True)], before, after)

    assert {usage.name: usage.cpu_s for usage in found} == {
        "worker-1": 2.0,
        "worker-1 supervisor": 1.0,
        "commands": 0.0,
        "bench": 0.0,
    }


def test_accounts_are_of_real_processes() -> None:
    before = processes.look()
    assert os.getpid() in before

    subprocess.run(["/bin/sh", "-c", "i=0; while [ $i -lt 200000 ]; do i=$((i + 1)); done"], check=True)
    [shell_loop, _, ourselves] = processes.usages([Root(name="group", pid=os.getpid())], before, processes.look())

    assert shell_loop.cpu_s > 0
    assert ourselves.rss_mb is not None and ourselves.rss_mb > 1


def test_the_limit_is_a_rate() -> None:
    assert spawn_limit([b"sh", b"-c", b"exit 3"], 2, 0.1) > 0


@pytest.mark.parametrize(
    ("argv", "threads", "seconds", "error"),
    [
        ([b"/does/not/exist"], 1, 0.1, FileNotFoundError),
        ([], 1, 0.1, OSError),
        ([b"true"], 0, 0.1, ValueError),
        ([b"true"], 65, 0.1, ValueError),
        ([b"true"], 1, 0.0, ValueError),
        ([b"true"], 1, float("nan"), ValueError),
    ],
)
def test_a_limit_that_can_not_be_measured_is_an_error(
    argv: list[bytes], threads: int, seconds: float, error: type[Exception]
) -> None:
    with pytest.raises(error):
        spawn_limit(argv, threads, seconds)
