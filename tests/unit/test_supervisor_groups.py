"""Where a supervisor makes the control groups of its commands. Takes root and a mounted hierarchy of version 2."""

import os
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.support.supervising import PATIENCE_SECONDS, program, run, shell, supervision

HIERARCHY = next(Path(part.mountpoint) for part in psutil.disk_partitions(all=True) if part.fstype == "cgroup2")
ENTER = 'echo $$ > "$0/cgroup.procs" && exec "$@"'


@pytest.fixture
def service() -> Iterator[Path]:
    """The group of a service, in which there is one for its own processes."""
    group = HIERARCHY / f"orqestra-test-{os.getpid()}"
    own = group / "main"
    own.mkdir(parents=True)
    yield group
    # A supervisor that is killed leaves the groups that it has made to the next one.
    for each, _, _ in os.walk(group, topdown=False):
        os.rmdir(each)


@pytest.mark.parametrize(
    ("delegated", "expected"),
    [
        pytest.param(b"1", "", id="handed over"),
        pytest.param(b"0", "main/", id="not handed over"),
        pytest.param(b"10", "main/", id="not as systemd says it"),
    ],
)
def test_groups_are_made_beside_the_processes_of_a_service_where_they_may(
    tmp_path: Path, service: Path, delegated: bytes, expected: str
) -> None:
    os.setxattr(service, "user.delegate", delegated)
    entered = ("sh", "-c", ENTER, str(service / "main"), *program())
    with supervision(tmp_path, command=entered) as kept:
        supervisor = kept.open()
        group = run(supervisor, shell("sed -n 's,^0::,,p' /proc/self/cgroup")).stdout.decode()
        assert group.startswith(f"/{service.name}/{expected}orqestra-{kept.incarnation}/")

        assert (service / "main" / "cgroup.procs").read_text() == f"{supervisor.pid}\n"


def test_what_a_killed_supervisor_left_is_ended_and_what_only_looks_like_it_is_not(
    tmp_path: Path, service: Path
) -> None:
    os.setxattr(service, "user.delegate", b"1")
    abandoned, foreign = (service / f"orqestra-{name}" for name in (uuid.uuid4(), "server"))

    entered = ("sh", "-c", ENTER, str(service / "main"), *program())
    with sleeper(abandoned) as left, sleeper(foreign) as stays, supervision(tmp_path, command=entered) as kept:
        kept.open()

        assert left.wait(PATIENCE_SECONDS) == -signal.SIGKILL
        assert stays.poll() is None
        assert not abandoned.exists()


@contextmanager
def sleeper(group: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Make a group and have a process in it."""
    group.mkdir()
    command = ["sh", "-c", ENTER, str(group), "sh", "-c", "echo; exec sleep 60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        try:
            yield process
        finally:
            process.kill()
