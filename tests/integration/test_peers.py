"""A round of the comparison with a small peer of our own on a real Redis: its stopwatch, and that nothing is left."""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers import contest
from benchmarks.peers.contest import RoundFailed
from benchmarks.peers.peer import PROGRAMS, Entrant, Language, Peer, StoreKind
from tests.support.processes import processes_of

JOBS = 50
# Speaks to Redis with the standard library alone: its environment has no packages.
PROGRAM = """
import os, socket, sys, time
from counter import count
from producer import order, tell

connection = socket.socket(socket.AF_UNIX)
connection.connect(os.environ["REDIS_SOCKET"])
answers = connection.makefile("rb")

def submit():
    jobs, payload = order()
    began_at = time.monotonic()
    for _ in range(jobs):
        connection.sendall(f"RPUSH jobs {payload}\\r\\n".encode())
        answers.readline()
    tell(began_at)

def worker(runs):
    while True:
        connection.sendall(b"BLPOP jobs 0\\r\\n")
        for _ in range(5):
            answers.readline()
        for _ in range(runs):
            count()

submit() if sys.argv[1] == "submit" else worker(int(sys.argv[2]))
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The environments of peers: that of `small` has its program and ours for an interpreter."""
    folder = tmp_path / "cache" / "small"
    folder.mkdir(parents=True)
    (folder / "program.py").write_text(PROGRAM)
    for name in ("counter.py", "producer.py"):
        (folder / name).write_text((PROGRAMS / name).read_text())
    monkeypatch.setenv("PATH", os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))
    return folder.parent


def small(tmp_path: Path, *, runs: int = 1, **changes: Any) -> Entrant:
    """Return a peer whose handlers run so often for a job."""
    directory = tmp_path / "small"
    directory.mkdir()
    (directory / "unfinished.lua").write_text("return redis.call('LLEN', 'jobs')")
    declared: dict[str, Any] = {
        "name": "small",
        "language": Language.PYTHON,
        "package": "small",
        "store": StoreKind.REDIS,
        "jobs": JOBS,
        "worker": ("python", "program.py", "worker", str(runs)),
        "starts": 2,
        "prepares": False,
        "durability": "",
        "settings": "",
        "directory": directory,
    }
    return Entrant(peer=Peer(**declared | changes), syncs_redis=True)


async def test_a_round_is_measured_and_leaves_nothing(
    tmp_path: Path, cache: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(folder))

    figures = await contest.measure(small(tmp_path), cache)

    assert figures.seconds > 0
    assert figures.drain_seconds > 0
    assert processes_of(str(cache)) == []
    assert processes_of(str(folder)) == []
    assert os.listdir(folder) == []


async def test_a_job_that_runs_twice_spoils_the_round(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(RoundFailed, match=r"jobs ran .* times"):
        await contest.measure(small(tmp_path, runs=2), cache)


async def test_a_worker_that_ends_spoils_the_round(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(RoundFailed, match="a worker ended with exit code 3"):
        await contest.measure(small(tmp_path, worker=("python", "-c", "raise SystemExit(3)")), cache)


async def test_a_producer_that_fails_spoils_the_round(tmp_path: Path, cache: Path) -> None:
    (cache / "small" / "producer.py").write_text(f"raise SystemExit({json.dumps('broken')})")

    with pytest.raises(RoundFailed, match="submit ended with exit code 1"):
        await contest.measure(small(tmp_path, worker=("sleep", "60")), cache)
