"""Every scenario of `orqestra bench`, small, on a server that runs: its document, and that all is left as it was."""

import asyncio
import json
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from orqestra.bench import load
from orqestra.bench.delayed import CLOCK_SECONDS
from orqestra.bench.open_loop import Schedule, submit_on_schedule
from orqestra.bench.wire import Wire, entry
from orqestra.client import Client, JobFilter, JobSpec, JobType
from orqestra.embedded.stack import Stack
from orqestra.model.lifecycle import TERMINAL, State
from orqestra.settings import Settings
from tests.support.processes import gone, processes_of
from tests.support.waiting import until

SECONDS = 60.0
# A session that the server was not told the end of is over so soon.
SETTINGS = {"ORQESTRA_LEASE_SECONDS": "3"}
OPEN = JobFilter(tags=("bench",), statuses=tuple(state for state in State if state not in TERMINAL))
KEYS = {
    *("scenario", "jobs", "seconds", "jobs_per_s", "limit_per_s", "limits_per_s", "ratio", "latency_ms", "processes"),
    *("lost", "duplicated", "failed", "settings", "machine", "versions"),
}
QUANTILES = ("p50", "p95", "p99", "p999", "max")
WORKERS = {"worker-1", "worker-2", "bench"}


@dataclass(frozen=True)
class Bench:
    """`orqestra bench` beside a running system, with its temporary files in `folder`."""

    stack: Stack
    folder: Path

    async def __call__(self, scenario: str, *arguments: str) -> tuple[int | None, str, str]:
        """Run a scenario to its end; return its exit code and what it wrote."""
        async with self.running(scenario, *arguments) as process:
            return await ended(process)

    @asynccontextmanager
    async def running(self, scenario: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """Start a scenario; at the end it does not run any more."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "orqestra", "bench", scenario, "--limit-seconds", "0.2", *arguments),
            env={**os.environ, "TMPDIR": str(self.folder), "GRPC_ADDR": self.stack.grpc_addr},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                assert await gone(process.pid)

    async def document(self, scenario: str, *arguments: str) -> dict[str, Any]:
        """Run a scenario beside the limit; return its document, in which all went well."""
        code, out, err = await self(scenario, "--json", "--postgres-url", self.stack.db_url, *arguments)
        assert code == 0, err
        document: dict[str, Any] = json.loads(out)
        assert document.keys() >= KEYS
        assert document["scenario"] == scenario
        assert (document["lost"], document["duplicated"], document["failed"]) == (0, 0, 0)
        assert document["ratio"] == pytest.approx(document["jobs_per_s"] / document["limit_per_s"], abs=0.01)
        return document


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, str, str]:
    """Wait for the end of a process; return its exit code and what it wrote."""
    async with asyncio.timeout(SECONDS):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(services_directory: Path) -> AsyncIterator[Stack]:
    async with Stack(services_directory / "bench-scenarios", workers=1, durable=False, settings=SETTINGS) as stack:
        yield stack


@pytest_asyncio.fixture(loop_scope="module")
async def bench(stack: Stack, folder: Path) -> AsyncIterator[Bench]:
    yield Bench(stack, folder)
    assert os.listdir(folder) == []
    assert processes_of(str(folder)) == []
    async with Client(stack.grpc_addr) as client:

        async def its_workers_are_gone() -> bool:
            return [worker.name for worker in await client.workers()] == ["worker-1"]

        await until(its_workers_are_gone, SECONDS)
    connection = await asyncpg.connect(stack.db_url)
    assert await connection.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'bench%'") == 0
    await connection.close()


def assert_are_latencies(figures: dict[str, float]) -> None:
    latencies = [figures[name] for name in QUANTILES]
    assert latencies == sorted(latencies) and latencies[0] > 0


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_throughput(bench: Bench) -> None:
    document = await bench.document("throughput", "--jobs", "2100")

    assert document["jobs"] == 2100
    assert document["jobs_per_s"] == pytest.approx(2100 / document["seconds"], rel=0.01)
    assert_are_latencies(document["latency_ms"])
    assert {process["name"] for process in document["processes"]} >= WORKERS
    assert document["settings"]["slots"] == 2 * Settings.load().worker_slots


async def test_workers_have_the_slots_that_were_chosen(bench: Bench) -> None:
    async with Client(bench.stack.grpc_addr) as client:

        async def slots() -> list[int]:
            return [worker.slots for worker in await client.workers() if worker.name.startswith("bench-")]

        async def both_are_there() -> bool:
            return len(await slots()) == 2

        async with bench.running("delayed", "--jobs", "50", "--slots", "3", "--json") as process:
            await until(both_are_there, SECONDS)
            assert await slots() == [3, 3]
            code, out, err = await ended(process)

    assert code == 0, err
    assert json.loads(out)["settings"]["slots"] == 6


async def test_single(bench: Bench) -> None:
    document = await bench.document("single", "--jobs", "500", "--callers", "16", "--workers", "1")

    settings = document["settings"]
    assert (settings["callers"], settings["batch_jobs"]) == (16, 1)
    assert (settings["compare_callers"], settings["compare_batch_jobs"]) == (load.CALLERS, load.BATCH_JOBS)
    assert document["ratio_to_batch"] == pytest.approx(document["jobs_per_s"] / document["batch_jobs_per_s"], abs=0.01)
    assert_are_latencies(document["latency_ms"])


async def test_latency(bench: Bench) -> None:
    document = await bench.document("latency", "--jobs", "30", "--seconds", "0.3", "--capacity-jobs", "1000")

    assert document["jobs"] == 30
    assert (document["settings"]["callers"], document["settings"]["batch_jobs"]) == (1, 1)
    assert document["capacity_jobs_per_s"] > 0
    assert document["loaded"].keys() == {"30", "70"}
    for figures in (document["latency_ms"], *document["loaded"].values()):
        assert_are_latencies(figures)


async def test_backlog(bench: Bench) -> None:
    document = await bench.document("backlog", "--jobs", "2000", "--compare", "500")

    assert document["drain_ratio"] == pytest.approx(document["jobs_per_s"] / document["compare_jobs_per_s"], abs=0.01)
    assert document["enqueue_jobs_per_s"] > 0
    assert {process["name"] for process in document["processes"]} >= WORKERS


async def test_delayed(bench: Bench) -> None:
    document = await bench.document("delayed", "--jobs", "200")

    assert document["seconds"] > 0.9
    # They may be late, on a machine with other work, but not early.
    assert_are_latencies(document["latency_ms"])
    assert document["early"] == 0
    assert document["settings"]["callers"] == 1


async def test_mixed(bench: Bench) -> None:
    document = await bench.document("mixed", "--jobs", "300")

    assert document["settings"]["callers"] == 1
    assert document["attempts"] > 300
    assert document["commands"] > 0


async def test_limit(bench: Bench) -> None:
    document = await bench.document("limit")

    assert document["jobs_per_s"] > 0
    assert document["spawns_per_s"] > 0


async def test_jobs_are_submitted_when_a_schedule_says_and_not_before(bench: Bench) -> None:
    began_at = time.monotonic()
    wall = time.time() - began_at
    schedule = Schedule(jobs=40, jobs_per_s=80, began_at=began_at)
    spec = JobSpec(type=JobType.NOOP, queue="bench-schedule", tags=("bench",))

    async with Wire(bench.stack.grpc_addr) as wire, Client(bench.stack.grpc_addr) as client:
        due_at = await submit_on_schedule(wire, entry(spec), schedule)
        stored = (await client.list(JobFilter(queue=spec.queue), limit=100)).jobs
        await client.cancel([job.id for job in stored])

    assert sorted(due_at.values()) == [schedule.at(number) for number in range(40)]
    assert due_at.keys() == {job.id for job in stored}
    stored_at = {job.id: job.created_at.timestamp() for job in stored if job.created_at}
    assert all(stored_at[job_id] >= wall + at - CLOCK_SECONDS for job_id, at in due_at.items())
    # Those of one batch are stored at one time, in their order.
    for at in set(stored_at.values()):
        batch = [due_at[job_id] for job_id in sorted(stored_at) if stored_at[job_id] == at]
        assert batch == sorted(batch)


@pytest.mark.parametrize(
    ("scenario", "option"),
    [
        ("limit", "--server=localhost:1"),
        ("limit", "--patience=1"),
        ("limit", "--embedded"),
        ("shell", "--postgres-url=postgresql://localhost:1/nowhere"),
    ],
)
async def test_an_option_that_would_do_nothing_is_refused(bench: Bench, scenario: str, option: str) -> None:
    code, out, err = await bench(scenario, option)

    assert (code, out) == (2, "")
    assert "No such option" in err and option.partition("=")[0] in err


@pytest.mark.parametrize("option", ["--server=localhost:1", "--patience=1"])
async def test_a_system_of_its_own_is_no_server_elsewhere(bench: Bench, option: str) -> None:
    code, out, err = await bench("throughput", "--embedded", option)

    assert (code, out) == (2, "")
    assert "--embedded has a server of its own" in err


async def test_without_a_postgres_there_is_no_ratio_and_that_is_said(bench: Bench) -> None:
    code, out, err = await bench("throughput", "--jobs", "100")

    assert code == 0
    assert "--postgres-url" in err
    assert "of the limit" not in out


async def test_a_postgres_that_is_not_there_is_told(bench: Bench) -> None:
    code, out, err = await bench("throughput", "--jobs", "100", "--postgres-url", "postgresql://localhost:1/nowhere")

    assert (code, out) == (1, "")
    assert re.fullmatch(r"Error: the raw cycle can't be measured: .*Errno 111.*\n", err)


@pytest.mark.parametrize(
    ("scenario", "arguments"),
    [("backlog", ["--jobs", "100000"]), ("shell", ["--jobs", "5000", "--command", "sleep 1"])],
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_run_that_is_cut_off_leaves_no_jobs(
    bench: Bench, scenario: str, arguments: list[str], number: signal.Signals
) -> None:
    async with Client(bench.stack.grpc_addr) as client:

        async def left() -> int:
            return len((await client.list(OPEN, limit=500)).jobs)

        async def many_wait() -> bool:
            return await left() == 500

        async def none_is_left() -> bool:
            return await left() == 0

        async with bench.running(scenario, *arguments) as process:
            await until(many_wait, SECONDS)
            process.send_signal(number)
            code, out, err = await ended(process)

            assert (code, out, err) == (130, "", "")
            # A command that runs is told to stop, and ends a little later.
            await until(none_is_left, SECONDS)


async def test_a_server_that_goes_away_is_told_in_a_line_and_what_it_may_still_have(folder: Path) -> None:
    (folder / "tmp").mkdir()
    async with Stack(folder / "data", workers=0, durable=False) as stack, Client(stack.grpc_addr) as client:

        async def some_wait() -> bool:
            return bool((await client.list(OPEN, limit=1)).jobs)

        bench = Bench(stack, folder / "tmp")
        async with bench.running("backlog", "--jobs", "1000000", "--patience", "0.5") as process:
            await until(some_wait, SECONDS)
            stack.kill_server()
            code, out, err = await ended(process)

    assert (code, out) == (4, "")
    *warnings, error = err.splitlines()
    assert error.startswith("Error: ")
    assert len(warnings) == 1
    assert re.search(r"orqestra list --queue bench-[0-9a-f]{8} --status \S*pending\S* shows them", warnings[0])
