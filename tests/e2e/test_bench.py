"""`orqestra bench` as a user runs it: what it prints, how it ends, and that nothing of it is left."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from dotenv import dotenv_values

from orqestra.client import Client, JobFilter
from orqestra.embedded.stack import Stack
from orqestra.model.lifecycle import State
from tests.support.processes import gone, processes_of
from tests.support.waiting import until

SECONDS = 60.0
KEYS = {
    *(
        "scenario",
        "jobs",
        "seconds",
        "jobs_per_s",
        "limit_per_s",
        "limits_per_s",
        "ratio",
        "latency_ms",
        "processes",
        "lost",
    ),
    *("duplicated", "failed", "settings", "machine", "versions", "xargs_per_s"),
}


@asynccontextmanager
async def running(
    folder: Path, *arguments: str, scenario: str = "shell", server: str = ""
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start `orqestra bench` with its temporary files in `folder`; at the end it does not run any more."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "orqestra", "bench", scenario, *arguments),
        env={**os.environ, "TMPDIR": str(folder), "GRPC_ADDR": server},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            assert await gone(process.pid)


async def end(process: asyncio.subprocess.Process) -> tuple[int | None, str, str]:
    """Wait for its end; return the exit code and what it wrote."""
    async with asyncio.timeout(SECONDS):
        out, err = await process.communicate()
    assert b"Traceback" not in err, err.decode()
    return process.returncode, out.decode(), err.decode()


async def found(folder: Path, pattern: str) -> Path:
    """Wait until there is a file of that name; return it."""
    await until(lambda: bool(files(folder, pattern)), SECONDS)
    return files(folder, pattern)[0]


def files(folder: Path, pattern: str) -> list[Path]:
    return list(folder.glob(pattern))


async def until_a_job_runs(folder: Path) -> None:
    """Wait until the system in `folder` runs a job of a benchmark."""
    settings = dotenv_values(await found(folder, "orqestra-bench-*/env"))
    async with Client(settings["GRPC_ADDR"] or "") as client:

        async def one_runs() -> bool:
            page = await client.list(JobFilter(tags=("bench",), statuses=(State.RUNNING,)), limit=1)
            return bool(page.jobs)

        await until(one_runs, SECONDS)


def without_unrest(err: str) -> str:
    """Return what was written to stderr but that the machine has other work, which a test can't prevent."""
    return "".join(line for line in err.splitlines(keepends=True) if "has other work" not in line)


def assert_nothing_is_left(folder: Path) -> None:
    assert processes_of(str(folder)) == []
    assert os.listdir(folder) == []


async def test_a_system_of_its_own_is_measured_and_gone(folder: Path) -> None:
    async with running(folder, "--embedded", "--jobs", "200", "--slots", "3", "--json") as process:
        code, out, err = await end(process)

    assert (code, without_unrest(err)) == (0, "")
    document = json.loads(out)
    assert document.keys() >= KEYS
    assert (document["scenario"], document["jobs"]) == ("shell", 200)
    assert (document["lost"], document["duplicated"], document["failed"]) == (0, 0, 0)
    assert document["settings"]["slots"] == 3
    assert document["jobs_per_s"] == pytest.approx(200 / document["seconds"], rel=0.01)
    assert document["ratio"] == pytest.approx(document["jobs_per_s"] / document["limit_per_s"], abs=0.01)
    latencies = [document["latency_ms"][name] for name in ("p50", "p95", "p99", "p999", "max")]
    assert latencies[0] > 0 and latencies == sorted(latencies) and latencies[-1] <= 1000 * document["seconds"]
    names = [process["name"] for process in document["processes"]]
    assert {"server", "worker-1", "postgres", "redis", "commands", "bench"} <= set(names)
    assert all(each["rss_mb"] > 1 for each in document["processes"] if each["name"] != "commands")
    assert {"orqestra", "python", "postgres", "redis-server"} <= document["versions"].keys()
    assert_nothing_is_left(folder)


async def test_a_system_that_runs_is_measured_and_left_as_it_is(folder: Path) -> None:
    temporary = folder / "tmp"
    temporary.mkdir()
    async with Stack(folder / "data", durable=False) as stack:
        async with running(temporary, "--jobs", "30", server=stack.grpc_addr) as process:
            code, out, err = await end(process)
        assert stack.server.child.exit_code is None

    assert (code, without_unrest(err)) == (0, "")
    assert "of the limit" in out
    assert "PROCESS" not in out
    assert os.listdir(temporary) == []


async def test_jobs_that_fail_fail_the_run(folder: Path) -> None:
    async with running(folder, "--embedded", "--jobs", "20", "--command", "exit 3", "--json") as process:
        code, out, err = await end(process)

    assert code == 1
    assert "20 failed" in err
    assert json.loads(out)["failed"] == 20
    assert_nothing_is_left(folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_and_nothing_is_left(folder: Path, number: signal.Signals) -> None:
    async with running(folder, "--embedded", "--jobs", "10000", "--command", "sleep 0.1") as process:
        await until_a_job_runs(folder)

        process.send_signal(number)
        code, out, _ = await end(process)

    assert (code, out) == (130, "")
    assert_nothing_is_left(folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
async def test_a_signal_while_it_starts_ends_it(folder: Path, number: signal.Signals) -> None:
    async with running(folder, "--embedded") as process:
        await found(folder, "orqestra-bench-*/postgres")

        process.send_signal(number)
        code, out, _ = await end(process)

    assert (code, out) == (130, "")
    assert_nothing_is_left(folder)


async def test_what_goes_with_its_own_system_only_is_refused_without_one(folder: Path) -> None:
    async with running(folder, "--slots", "3") as process:
        code, out, err = await end(process)

    assert (code, out) == (2, "")
    assert "--slots goes with --embedded" in err


async def test_limits_need_no_system(folder: Path) -> None:
    async with running(folder, "--limit-seconds", "0.3", "--json", scenario="limit") as process:
        code, out, err = await end(process)

    assert (code, without_unrest(err)) == (0, "")
    assert json.loads(out)["jobs_per_s"] > 0
    assert_nothing_is_left(folder)


async def test_a_signal_ends_the_workers_of_a_scenario_too(folder: Path) -> None:
    async with running(folder, "--embedded", "--jobs", "1000000", scenario="backlog") as process:
        await found(folder, "orqestra-bench-*/worker-1/journal")

        process.send_signal(signal.SIGTERM)
        code, out, _ = await end(process)

    assert (code, out) == (130, "")
    assert_nothing_is_left(folder)
