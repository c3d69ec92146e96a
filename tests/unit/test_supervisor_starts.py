"""A supervisor is started, found, refused or replaced; why it can't be is told."""

import ctypes
import os
import platform
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from orqestra.model.errors import StartFailed
from orqestra.worker.supervision import LOG_BYTES, SOCKET
from tests.support.supervising import ends, exits, pids, program, run, seen, shell, supervision

SHORT_TURN_NS = 100_000
SCHED_ATTR = "IIQiIQQQ"
# The C library has no function for it.
SCHED_GETATTR = {"x86_64": 315, "aarch64": 275}
# It answers with these bytes over its line, and waits until the line is closed.
IMPOSTOR = """
import os, sys
line = int(sys.argv[2])
os.write(line, bytes.fromhex({answer!r}))
while os.read(line, 1 << 16): pass
"""
# A first frame as every version writes it: the kind, the protocol, and the rest.
OF_PROTOCOL_99 = b"\0" + (99).to_bytes(4, "little") + b"\3\0\0\0" + b"9.9" + bytes(20)


def impostor(answer: bytes) -> tuple[str, ...]:
    framed = len(answer).to_bytes(4, "little") + answer
    return (sys.executable, "-c", IMPOSTOR.format(answer=framed.hex()))


def test_only_its_owner_can_talk_to_it(tmp_path: Path) -> None:
    with supervision(tmp_path) as kept:
        kept.open()
        assert (tmp_path / SOCKET).stat().st_mode & 0o777 == 0o600


def test_a_directory_may_have_a_longer_path_than_a_socket(tmp_path: Path) -> None:
    directory = tmp_path / ("long" * 30)
    directory.mkdir()
    with supervision(directory) as first, supervision(directory) as second:
        first.open().hang_up()
        assert second.open().incarnation == first.incarnation


def test_two_directories_have_two_supervisors(tmp_path: Path) -> None:
    folders = [tmp_path / "worker-0", tmp_path / "worker-1"]
    for each in folders:
        each.mkdir()
    with supervision(folders[0]) as one, supervision(folders[1]) as two:
        supervisors = [one.open(), two.open()]
        assert supervisors[0].pid != supervisors[1].pid
        for supervisor in supervisors:
            assert run(supervisor, shell("echo mine")).stdout == b"mine\n"


def test_a_directory_has_one_supervisor(tmp_path: Path) -> None:
    with supervision(tmp_path) as kept, supervision(tmp_path) as other:
        supervisor = kept.open()
        (tmp_path / SOCKET).unlink()
        with pytest.raises(StartFailed, match="another supervisor lives in this folder"):
            other.open()
        assert run(supervisor, shell("echo well")).stdout == b"well\n"


def test_what_speaks_another_protocol_is_refused(tmp_path: Path) -> None:
    with supervision(tmp_path, command=impostor(OF_PROTOCOL_99)) as kept:
        with pytest.raises(StartFailed, match=r"is of version 9\.9 and speaks protocol 99, this worker \d+: commands"):
            kept.open()
        assert kept.supervisor is None


def test_one_of_another_version_is_replaced_once_it_holds_nothing(tmp_path: Path) -> None:
    with (
        supervision(tmp_path, command=program(version="0.0.1")) as first,
        supervision(tmp_path) as second,
        supervision(tmp_path) as third,
    ):
        old = first.open()
        assert run(old, shell("true")).exit_code == 0
        old.start([shell("echo; exec sleep 600", key=1)])
        seen(old, b"\n")
        old.hang_up()

        # It speaks the same, and has a command: it is kept.
        kept = second.open()
        assert (kept.version, kept.pid) == ("0.0.1", old.pid)
        kept.kill([1])
        kept.forget([exits(kept, 1)[0].key])
        kept.hang_up()

        new = third.open()
        assert new.version != "0.0.1"
        assert new.pid != old.pid
        assert run(new, shell("echo new")).stdout == b"new\n"


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("/nowhere/python",), "No such file"),
        ((sys.executable, "-c", "raise SystemExit('no memory')"), "ended while it started; it said: no memory"),
        (impostor(b"\xff"), "what answers is no supervisor"),
    ],
)
def test_why_it_cannot_be_started_is_told(tmp_path: Path, command: tuple[str, ...], reason: str) -> None:
    with supervision(tmp_path, command=command) as kept, pytest.raises(StartFailed, match=reason):
        kept.open()


def test_what_is_in_the_way_is_told_and_need_not_stay(tmp_path: Path) -> None:
    (tmp_path / "spool").touch()
    with supervision(tmp_path) as kept:
        with pytest.raises(StartFailed, match=r"can't be started: .*; it said: .*Error"):
            kept.open()
        (tmp_path / "spool").unlink()
        assert run(kept.open(), shell("echo well")).stdout == b"well\n"


def test_a_long_log_is_begun_anew(tmp_path: Path) -> None:
    log = tmp_path / "supervisor.log"
    log.write_bytes(bytes(LOG_BYTES + 1))
    with supervision(tmp_path) as kept:
        kept.open()
        assert log.stat().st_size == 0


def test_what_starts_commands_has_short_turns_and_commands_have_those_of_others(tmp_path: Path) -> None:
    with supervision(tmp_path) as kept:
        supervisor = kept.open()
        supervisor.start([shell("echo $$; exec sleep 600", key=1)])
        (command,) = pids(supervisor, [1])
        threads = Path(f"/proc/{supervisor.pid}/task").iterdir()
        turns = {(thread / "comm").read_text().strip(): turn_ns(int(thread.name)) for thread in threads}

        usual = turn_ns(os.getpid())
        assert turn_ns(command) == usual
        # A kernel that has turns of one length tells of none.
        assert {turns["hub"], turns["spawner-0"]} == {min(SHORT_TURN_NS, usual)}


def turn_ns(task: int) -> int:
    """Return how long a turn of a thread on the processor is; 0 if that is not told."""
    # As struct sched_attr begins: size, policy, flags, nice, priority and runtime.
    told = bytearray(struct.calcsize(SCHED_ATTR))
    place = (ctypes.c_char * len(told)).from_buffer(told)
    assert ctypes.CDLL(None).syscall(SCHED_GETATTR[platform.machine()], task, place, len(told), 0) == 0
    return int(struct.unpack(SCHED_ATTR, told)[5])


def test_what_commands_of_a_killed_supervisor_left_is_removed(tmp_path: Path) -> None:
    with supervision(tmp_path) as kept:
        supervisor = kept.open()
        jobs = tmp_path / "jobs"
        script = "touch $TMPDIR/file; echo; sleep 600"
        supervisor.start([shell(script, key=1, directory=bytes(jobs))])
        seen(supervisor, b"\n")
        os.kill(supervisor.pid, signal.SIGKILL)
        kept.lost()
        assert [path.name for path in jobs.rglob("file")] == ["file"]

        again = kept.open()

        assert again.incarnation != supervisor.incarnation
        assert list(jobs.iterdir()) == []


def test_what_commands_of_a_killed_supervisor_started_is_ended_without_control_groups_too(tmp_path: Path) -> None:
    # given a supervisor that can make no groups, and a process in a session of its own
    with supervision(tmp_path, command=without_groups(program())) as kept, stranger() as unmarked:
        supervisor = kept.open()
        script = "setsid nohup sh -c 'echo $$; exec sleep 1000' & exec sleep 600"
        supervisor.start([shell(script, key=1, directory=bytes(tmp_path / "jobs"))])
        (left,) = pids(supervisor, [1])
        assert groups_of(left) == groups_of(supervisor.pid)

        # when it is killed, which that process outlives
        os.kill(supervisor.pid, signal.SIGKILL)
        kept.lost()
        assert psutil.pid_exists(left)

        # then the next one ends it, and nothing else
        kept.open()
        ends(left)
        assert unmarked.poll() is None


def without_groups(words: Sequence[str]) -> tuple[str, ...]:
    """Return a command that runs where no control groups are to be seen. Takes root, as they are unmounted."""
    return ("unshare", "--mount", "sh", "-c", 'umount --all --types cgroup2 && exec "$@"', "sh", *words)


def groups_of(pid: int) -> str:
    """Return in which control groups a process is."""
    return Path(f"/proc/{pid}/cgroup").read_text()


@contextmanager
def stranger() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that no supervisor has started."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        try:
            yield process
        finally:
            process.kill()
