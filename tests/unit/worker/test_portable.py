"""The fallback for systems other than Linux: it passes what holds everywhere, and what is true of it alone.

The first by running those tests again, in an interpreter that lacks what macOS lacks.
"""

import errno
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orqestra.worker.portable import Command, Exit, Gone, Live, Strays, Stuck, Supervision, Supervisor
from orqestra.worker.portable.capture import Capture
from orqestra.worker.portable.execution import Settings
from tests.support.supervising import PATH, PATIENCE_SECONDS, ends

ROOT = Path(__file__).resolve().parents[3]
MARK = "mark." + "everywhere"
MARKED = sorted(
    path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py") if MARK in path.read_text()
)
ELSEWHERE = "tests.support.elsewhere"
IMPORTS = f"""
import {ELSEWHERE}, os, sys
del os.pidfd_open
import orqestra.cli.worker, orqestra.worker.daemon
from orqestra import setting_defaults
assert int(setting_defaults.slots({{}})) >= 4
assert "orqestra.worker.supervision" not in sys.modules
"""
DAEMON = """
import select, sys
from pathlib import Path
from orqestra.worker.portable import Command, Supervision
supervisor = Supervision(Path(sys.argv[1]), 600).open()
supervisor.start([Command(key=1, argv=[b"sh", b"-c", b"trap '' TERM; sleep 600 & echo $$ $!; wait"], env=[])])
supervisor.follow(1, 0, 0)
select.select([supervisor.fileno()], [], [])
print(supervisor.reports()[0].data.decode(), end="", flush=True)
sys.stdin.read()
"""

Report = Exit | Live | Gone | Stuck | Strays


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Supervision]:
    kept = Supervision(tmp_path, 600, Settings(drain_seconds=0.3, head_bytes=10, tail_bytes=20))
    yield kept
    kept.lost()


@pytest.fixture
def supervisor(kept: Supervision) -> Supervisor:
    return kept.open()


def shell(script: str, **fields: Any) -> Command:
    defaults: dict[str, Any] = {"key": 1, "argv": [b"sh", b"-c", script.encode()], "env": PATH}
    return Command(**defaults | fields)


def taken(supervisor: Supervisor) -> list[Report]:
    ready, _, _ = select.select([supervisor.fileno()], [], [], PATIENCE_SECONDS)
    assert ready, "no report in time"
    return supervisor.reports()


def run(supervisor: Supervisor, command: Command) -> Exit:
    supervisor.start([command])
    return ended(supervisor)


def ended(supervisor: Supervisor) -> Exit:
    while True:
        for report in taken(supervisor):
            if isinstance(report, Exit):
                return report


def written(supervisor: Supervisor) -> bytes:
    """Follow the command until it has written something."""
    supervisor.follow(1, 0, 0)
    (live,) = taken(supervisor)
    assert isinstance(live, Live), live
    return live.data


@pytest.mark.parametrize("tests", MARKED)
def test_it_passes_what_holds_everywhere(tests: str) -> None:
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", "-p", ELSEWHERE)
    done = subprocess.run((*command, "-m", "everywhere", tests), check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_that_only_linux_has_is_needed_to_import_a_worker() -> None:
    done = subprocess.run((sys.executable, "-c", IMPORTS), check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_commands_die_with_a_daemon_that_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        (sys.executable, "-c", DAEMON, tmp_path), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as daemon:
        assert daemon.stdout is not None
        pids = [int(word) for word in daemon.stdout.readline().split()]
        daemon.kill()
        daemon.wait()
    for pid in pids:
        ends(pid)


@pytest.mark.parametrize("stops", [True, False], ids=["after a stop", "without"])
def test_it_ends_with_its_commands(kept: Supervision, supervisor: Supervisor, *, stops: bool) -> None:
    incarnation = kept.incarnation
    supervisor.bound(1, 2**63 - 1)
    script = "trap 'exit 4' TERM; echo $$; while :; do sleep 0.01; done"
    supervisor.start([shell(script), shell("true", key=2)])
    pid = int(written(supervisor))

    if stops:
        supervisor.stop()
        supervisor.cancel([1])
        assert ended(supervisor).exit_code == 4
    kept.lost()

    ends(pid)
    assert supervisor.closed
    assert kept.incarnation != incarnation
    # and what nobody asks it for any more is not done
    supervisor.start([shell("true", key=3)])


def test_what_commands_of_a_killed_daemon_left_is_removed(kept: Supervision, tmp_path: Path) -> None:
    (tmp_path / "jobs" / "1").mkdir(parents=True)
    kept.open()
    assert list((tmp_path / "jobs").iterdir()) == []


def test_a_whole_group_has_its_grace_and_then_kill(supervisor: Supervisor) -> None:
    # given a leader that ends at once, and a child of it that does not
    script = "(trap '' TERM; echo $$; while :; do sleep 0.01; done) & trap 'exit 0' TERM; wait"
    supervisor.start([shell(script, grace_ms=500)])
    written(supervisor)

    supervisor.cancel([1])

    exit_ = ended(supervisor)
    assert (exit_.reason, exit_.exit_code, exit_.killed, exit_.killed_processes) == ("cancelled", 0, True, 1)


def test_what_left_the_group_lives_on_and_holds_nothing(supervisor: Supervisor) -> None:
    exit_ = run(supervisor, shell("setsid sh -c 'echo $$; exec sleep 600' & sleep 0.1"))
    assert (exit_.exit_code, exit_.wall_us < 5_000_000) == (0, True)
    os.kill(int(exit_.stdout), signal.SIGKILL)


@pytest.mark.parametrize(
    ("script", "limits"),
    [
        ("while :; do :; done", {"cpu_seconds": 1}),
        ("trap '' XCPU; while :; do :; done", {"cpu_seconds": 1}),
        ("head -c 2000 /dev/zero > $TMPDIR/file", {"file_bytes": 1000}),
    ],
)
def test_a_limit_that_ended_a_command_is_the_reason(
    supervisor: Supervisor, tmp_path: Path, script: str, limits: dict[str, int]
) -> None:
    exit_ = run(supervisor, shell(script, limits=limits, directory=bytes(tmp_path / "jobs")))
    assert exit_.reason == "resource_limit"


@pytest.mark.parametrize(
    ("fields", "stage", "code"),
    [
        ({"user": (0, 0, [])}, "user", errno.EPERM),
        ({"directory": b"/not/there"}, "directory", errno.ENOENT),
        ({"previous_output": b"nowhere to put it"}, "command", errno.EINVAL),
    ],
)
def test_what_cannot_be_run_here_says_why(
    supervisor: Supervisor, fields: dict[str, Any], stage: str, code: int
) -> None:
    exit_ = run(supervisor, shell("true", **fields))
    assert (exit_.reason, exit_.stage, exit_.errno, exit_.started_at_us) == ("spawn_failed", stage, code, 0)
    assert exit_.error


def test_output_beyond_small_bounds_is_cut_and_counted(supervisor: Supervisor) -> None:
    exit_ = run(supervisor, shell("seq -s '' 1 100; seq -s '' 1 30 >&2"))
    whole = b"".join(b"%d" % number for number in range(1, 101)) + b"\n"
    assert (exit_.stdout, exit_.stdout_bytes) == (whole[:10] + whole[-20:], len(whole))
    assert (exit_.stderr_bytes, len(exit_.stderr), exit_.truncated) == (52, 30, True)


@given(
    head_bytes=st.integers(0, 20),
    tail_bytes=st.integers(0, 20),
    pieces=st.lists(st.binary(max_size=30), max_size=12),
    offset=st.integers(0, 200),
)
def test_capture_keeps_exactly_head_and_tail(
    head_bytes: int, tail_bytes: int, pieces: list[bytes], offset: int
) -> None:
    capture = Capture(head_bytes, tail_bytes)
    for piece in pieces:
        capture.push(piece)

    whole = b"".join(pieces)
    tail_at = max(len(whole) - tail_bytes, min(head_bytes, len(whole)))
    places = [at for at in range(len(whole)) if at < head_bytes or at >= tail_at]
    assert (capture.kept(), capture.total) == (bytes(whole[at] for at in places), len(whole))
    told = {start + at: byte for start, part in capture.kept_from(offset) for at, byte in enumerate(part)}
    assert told == {at: whole[at] for at in places if at >= offset}
