"""Where a supervisor makes the control groups of its commands. Takes root and a mounted hierarchy of version 2."""

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.supervising import program, run, shell, supervision

HIERARCHY = next(Path(part.mountpoint) for part in psutil.disk_partitions(all=True) if part.fstype == "cgroup2")
ENTER = 'echo $$ > "$0/cgroup.procs" && exec "$@"'


@pytest.fixture
def service() -> Iterator[Path]:
    """The group of a service, in which there is one for its own processes."""
    # Not `orqestra-`: what is called so and has no owner is ended by whatever supervisor starts beside it.
    group = HIERARCHY / f"service-of-test-{os.getpid()}"
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
