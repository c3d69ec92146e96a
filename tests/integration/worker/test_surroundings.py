"""As whom and within which bounds commands run, with a whole worker."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orqestra.v1.worker_pb2 import Assignment
from orqestra.worker.surroundings import Surroundings
from tests.support.supervising import supervisor_pid
from tests.support.worker_peer import Peer, assignment
from tests.support.working import worker_process, working

NOBODY = "nobody"
NOBODY_UID = 65534
# Tells the controllers of the group that it runs in, or nothing.
CONTROLLERS = """
tree=$(sed -n 's,^[^ ]* \\([^ ]*\\) cgroup2 .*,\\1,p' /proc/mounts | head -1)
cat "$tree$(sed -n 's,^0::,,p' /proc/self/cgroup)/cgroup.controllers" || true
"""


def payload(command: str, **fields: object) -> bytes:
    return json.dumps({"command": command, **fields}).encode()


@contextmanager
def processes_of(user: str) -> Iterator[None]:
    """Have a user run two processes meanwhile, if we may start them for him."""
    started = [subprocess.Popen(["sleep", "60"], user=user if os.geteuid() == 0 else None) for _ in range(2)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


async def run(peer: Peer, state: Path, job: Assignment, surroundings: Surroundings) -> tuple[bytes, str, str]:
    """Run one job; return its output, why it ended and what is said of it."""
    async with working(peer, state, state_dir=state, surroundings=surroundings):
        session = await peer.welcomed()
        await session.assign(job)
        result = await session.result(job.attempt.job_id)
    return result.stdout, result.reason, result.error


async def test_a_job_runs_as_a_user_that_the_worker_allows(peer: Peer) -> None:
    job = assignment(1, payload=payload("id -u; echo mine > $TMPDIR/file; cat $TMPDIR/file", run_as=NOBODY, cwd="/"))

    # Not below pytest's own directory, through which nobody else may pass.
    with tempfile.TemporaryDirectory() as state:
        stdout, reason, error = await run(peer, Path(state), job, Surroundings(run_as=(NOBODY,)))

    if os.geteuid() == 0:
        assert (stdout, reason) == (f"{NOBODY_UID}\nmine\n".encode(), "exited"), error
    else:
        assert reason == "spawn_failed"


async def test_a_user_that_the_worker_does_not_name_is_refused(peer: Peer, tmp_path: Path) -> None:
    job = assignment(1, payload=payload("id -u", run_as=NOBODY))

    stdout, reason, error = await run(peer, tmp_path, job, Surroundings(run_as=("backup",)))

    assert (stdout, reason) == (b"", "spawn_failed")
    assert error == "payload.run_as: 'nobody' is not among ORQESTRA_RUN_AS here: backup"


@pytest.mark.parametrize(
    ("run_as", "error"),
    [
        ("not-there", "there is no user 'not-there' on this worker"),
        ("987654", "user 987654 has no entry here and so no group: write user:group"),
        (f"{NOBODY}:not-there", "there is no group 'not-there' on this worker"),
    ],
)
async def test_whom_the_machine_does_not_know_is_told_and_runs_nothing(
    peer: Peer, tmp_path: Path, run_as: str, error: str
) -> None:
    ran = tmp_path / "ran"
    job = assignment(1, payload=payload(f"touch {ran}", run_as=run_as))

    async with working(peer, tmp_path, surroundings=Surroundings(run_as=(run_as,))):
        session = await peer.welcomed()
        await session.assign(job)
        result = await session.result(1)

    assert (result.ok, result.reason, result.exit_code) == (False, "spawn_failed", 126)
    assert result.error == f"payload.run_as: {error}"
    assert not ran.exists()


async def test_a_job_whose_user_has_more_processes_than_it_allows_fails_and_nothing_is_short(peer: Peer) -> None:
    job = assignment(1, payload=payload("true", run_as=NOBODY, cwd="/", limits={"processes": 1}))
    another = assignment(2, payload=payload(CONTROLLERS, run_as=NOBODY, cwd="/"))
    options = {"surroundings": Surroundings(run_as=(NOBODY,))}

    with tempfile.TemporaryDirectory() as state, processes_of(NOBODY):
        async with working(peer, Path(state), state_dir=Path(state), **options):
            session = await peer.welcomed()
            await session.assign(job)
            result = await session.result(1)
            await session.assign(another)
            other = await session.result(2)

    if os.geteuid() != 0:
        assert {result.reason, other.reason} == {"spawn_failed"}
    elif b"pids" in other.stdout.split():
        # Its own processes alone are counted.
        assert (result.reason, other.reason) == ("exited", "exited")
    else:
        assert (result.reason, result.exit_code) == ("spawn_failed", 126)
        assert result.error.startswith("limit EAGAIN: its user has more processes than its limit allows")
        # The worker goes on taking work at once.
        assert other.reason == "exited"


async def test_ceilings_hold_for_who_asks_for_more_and_for_who_asks_for_nothing(peer: Peer, tmp_path: Path) -> None:
    ceilings = {"open_files": 100, "nice": 5, "timeout": 60}
    modest = assignment(1, payload=payload("ulimit -n; nice", limits={"open_files": 50}, nice=7))
    greedy = assignment(2, payload=payload("ulimit -n; nice", limits={"open_files": 500}))

    async with working(peer, tmp_path, surroundings=Surroundings(ceilings=ceilings)):
        session = await peer.welcomed()
        await session.assign(modest, greedy)
        outputs = [(await session.result(job_id)).stdout for job_id in (1, 2)]

    assert outputs == [b"50\n7\n", b"100\n5\n"]


def test_a_timeout_is_the_shorter_of_both() -> None:
    none, hour = Surroundings(), Surroundings(ceilings={"timeout": 3600})

    assert (none.timeout_ms(0), none.timeout_ms(5)) == (0, 5)
    assert (hour.timeout_ms(0), hour.timeout_ms(5), hour.timeout_ms(10**9)) == (3_600_000, 5, 3_600_000)


async def test_commands_are_ended_before_worker_and_supervisor_when_memory_is_short(peer: Peer, tmp_path: Path) -> None:
    own, spared = oom_score("self"), spared_score()
    command = assignment(1, payload=payload("cat /proc/self/oom_score_adj"))

    async with worker_process(peer.address, "--state-dir", str(tmp_path)) as process:
        session = await peer.welcomed()
        await session.assign(command)
        result = await session.result(1)

        assert oom_score(process.pid) == oom_score(supervisor_pid(tmp_path / "worker-0")) == spared
    assert int(result.stdout) == max(own, 500)


def oom_score(pid: int | str) -> int:
    """Return how much sooner than by its size a process is ended."""
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def spared_score() -> int:
    """Return what a process that wants to be spared has here: in a container it may not be allowed to."""
    script = "echo -500 > /proc/self/oom_score_adj"
    trial = subprocess.run(["sh", "-c", script], stderr=subprocess.DEVNULL, check=False)
    return -500 if trial.returncode == 0 and oom_score("self") == 0 else oom_score("self")
