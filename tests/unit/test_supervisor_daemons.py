"""A supervisor and the daemons that come and go: it is found again, serves one at a time, and ends by itself."""

import os
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path

import pytest

from orqestra._dispatch import Supervisor
from orqestra.worker.supervision import SOCKET, Supervision
from tests.support.supervising import (
    PATIENCE_SECONDS,
    ends,
    exits,
    pids,
    run,
    seen,
    shell,
    supervision,
    taken,
)

# From the first look at the directory to the answer of the supervisor that lives there.
ATTACH_SECONDS = 2.0
MANY = 200
MANY_OUTPUT_BYTES = 100_000
DAEMONS = 5
# Every supervisor that is idle and alone is over by then.
IDLE_SECONDS = 8.0
ORPHAN_SECONDS = 1.0
# TERM, five seconds later KILL, and the time that pipes are still read.
ORPHANS_END_SECONDS = 12.0
GARBAGE = {
    "no frame": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a frame that is too long": b"\xff" * 64,
    "a frame of an unknown kind": b"\1\0\0\0\xff",
    "a frame that is cut off": b"\5\0\0\0\2\xff\0\0\0",
    "nothing": b"",
}


def found(kept: Supervision) -> tuple[Supervisor, dict[int, bool]]:
    """Attach to the supervisor that is there; return also which keys it holds, and whether they have ended."""
    supervisor = kept.open()
    return supervisor, {key: ended for key, _, ended in supervisor.held}


def connect(directory: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(PATIENCE_SECONDS)
    connection.connect(str(directory / SOCKET))
    return connection


@pytest.mark.alone
def test_the_next_daemon_finds_what_runs_and_what_has_ended(folder: Path) -> None:
    # given a supervisor with a command that runs, one whose end was told, and one that ends when nobody is there
    gate = folder / "gate"
    os.mkfifo(gate)
    with supervision(folder) as first, supervision(folder) as second:
        supervisor = first.open()
        last = f"echo; read _ < {gate}; head -c 100000 /dev/zero; exit 7"
        supervisor.start(
            [shell("echo told; exit 3", tag=b"one", key=1), shell("echo $$; exec sleep 600", key=2, tag=b"two")]
        )
        exits(supervisor, 1)
        (pid,) = pids(supervisor, [2])
        supervisor.start([shell(last, key=3, tag=b"three")])
        seen(supervisor, b"\n", key=3)
        supervisor.hang_up()
        gate.write_text("\n")

        # when the next one comes
        start = time.monotonic()
        again = second.open()
        assert time.monotonic() - start < ATTACH_SECONDS

        # then it is the same, all that is held is told, and how the others ended
        assert (again.pid, again.incarnation, second.incarnation) == (
            supervisor.pid,
            supervisor.incarnation,
            first.incarnation,
        )
        assert [(key, tag) for key, tag, _ in again.held] == [(1, b"one"), (2, b"two"), (3, b"three")]
        ended = {exit_.key: exit_ for exit_ in exits(again, 2)}
        assert (ended[1].tag, ended[1].exit_code, ended[1].stdout) == (b"one", 3, b"told\n")
        assert (ended[3].tag, ended[3].exit_code, ended[3].stdout) == (b"three", 7, b"\n" + bytes(100_000))

        # and the one that runs is its own now
        again.kill([2])
        assert exits(again, 1)[0].signal == signal.SIGKILL
        ends(pid)


def test_what_could_not_be_started_is_told_to_the_next_daemon_at_once(tmp_path: Path) -> None:
    with supervision(tmp_path) as first, supervision(tmp_path) as second:
        supervisor = first.open()
        supervisor.start([shell("", argv=[b"not-there"], tag=b"tag", key=1)])
        assert exits(supervisor, 1)[0].reason == "spawn_failed"
        supervisor.hang_up()

        again = second.open()

        assert again.held == [(1, b"tag", True)]
        assert exits(again, 1)[0].reason == "spawn_failed"


def test_daemons_in_a_row_run_nothing_twice(folder: Path) -> None:
    # given a daemon that starts many commands with much output, and is gone at once
    journal = folder / "journal"
    script = f"echo $N >> {journal}; head -c {MANY_OUTPUT_BYTES} /dev/zero | tr '\\0' x; echo $N >&2"
    with supervision(folder) as first:
        supervisor = first.open()
        commands = [
            shell(script, key=key, env=[(b"PATH", b"/usr/bin:/bin"), (b"N", b"%d" % key)]) for key in range(MANY)
        ]
        supervisor.start(commands)
        taken(supervisor)
        supervisor.hang_up()

        # when others come, hear some ends, forget those, and go
        heard: set[int] = set()
        for _ in range(DAEMONS):
            with supervision(folder) as next_:
                again, held = found(next_)
                assert again.incarnation == first.incarnation
                # They have been heard of only once they were forgotten.
                assert set(held) == set(range(MANY)) - heard
                # What was read from the disk for a daemon that left may be told twice to the next.
                enough = min(MANY, len(heard) + MANY // DAEMONS)
                while len(heard) < enough:
                    for exit_ in exits(again, 1):
                        assert (exit_.stdout, exit_.stderr) == (b"x" * MANY_OUTPUT_BYTES, b"%d\n" % exit_.key)
                        assert exit_.key in held
                        heard.add(exit_.key)
                again.forget(list(heard))
                again.hang_up()

    # then each command ran once, and all ends were told
    assert heard == set(range(MANY))
    assert sorted(map(int, journal.read_text().split())) == list(range(MANY))


def test_a_supervisor_with_nothing_to_do_ends_soon_after_its_daemon(tmp_path: Path) -> None:
    with supervision(tmp_path) as kept:
        supervisor = kept.open()
        run(supervisor, shell("true"))
        supervisor.hang_up()

        ends(supervisor.pid, IDLE_SECONDS)

        assert not (tmp_path / SOCKET).exists()


def test_commands_that_nobody_comes_for_are_ended_and_told_to_the_next(tmp_path: Path) -> None:
    # given commands, one of which does not end when it is asked to, and no daemon for longer than is allowed
    with supervision(tmp_path, ORPHAN_SECONDS) as first:
        supervisor = first.open()
        obeys = "trap 'echo asked; exit 4' TERM; echo $$; while :; do sleep 0.1; done"
        ignores = "trap 'echo asked' TERM; echo $$; while :; do sleep 0.1; done"
        supervisor.start([shell(obeys, grace_ms=60_000, key=1), shell(ignores, key=2, grace_ms=60_000)])
        numbers = pids(supervisor, [1, 2])
        supervisor.hang_up()

        # when the supervisor has ended
        ends(supervisor.pid, ORPHANS_END_SECONDS)

    # then nothing is left of them, and the next one knows how they ended
    assert not any(Path(f"/proc/{pid}").exists() for pid in numbers)
    with supervision(tmp_path) as second:
        again, held = found(second)
        assert again.incarnation != supervisor.incarnation
        assert held == {1: True, 2: True}
        one, two = sorted(exits(again, 2), key=lambda exit_: exit_.key)
    assert (one.exit_code, one.stdout.split()[1]) == (4, b"asked")
    assert (two.signal, two.killed, two.stdout.split()[1]) == (signal.SIGKILL, True, b"asked")


def test_a_daemon_that_comes_in_time_saves_the_commands(tmp_path: Path) -> None:
    with supervision(tmp_path, ORPHAN_SECONDS) as first, supervision(tmp_path) as second:
        supervisor = first.open()
        supervisor.start([shell("echo; exec sleep 600", key=1)])
        seen(supervisor, b"\n")
        supervisor.hang_up()
        # Its orphan timeout is the one that counts from now on.
        again = second.open()
        again.hang_up()

        with pytest.raises(AssertionError, match="lives on"):
            ends(again.pid, 2 * ORPHAN_SECONDS)
        with supervision(tmp_path) as third:
            assert found(third)[1] == {1: False}


@pytest.mark.parametrize("attached", [True, False], ids=["while a daemon is there", "while none is"])
@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_ends_only_its_own_connection(folder: Path, what: str, *, attached: bool) -> None:
    with supervision(folder) as kept:
        supervisor = kept.open()
        supervisor.start([shell("echo; exec sleep 600", key=1)])
        seen(supervisor, b"\n")
        if not attached:
            supervisor.hang_up()

        with connect(folder) as connection:
            connection.sendall(GARBAGE[what])
            connection.shutdown(socket.SHUT_WR)
            # What is not read before its end resets the connection.
            with suppress(ConnectionResetError):
                assert connection.recv(1) == b""

        if attached:
            assert run(supervisor, shell("echo well", key=2)).stdout == b"well\n"
        else:
            with supervision(folder) as next_:
                assert found(next_)[1] == {1: False}


def test_a_daemon_of_another_protocol_is_answered_and_not_obeyed(folder: Path) -> None:
    with supervision(folder) as first, supervision(folder) as second:
        supervisor = first.open()
        supervisor.start([shell("echo; exec sleep 600", key=1)])
        seen(supervisor, b"\n")
        supervisor.hang_up()
        attach = b"\0" + (99).to_bytes(4, "little") + b"\3\0\0\0" + b"9.9" + (600_000).to_bytes(8, "little")
        kill = b"\3" + (1).to_bytes(4, "little") + (1).to_bytes(8, "little")
        with connect(folder) as connection:
            for frame in (attach, kill):
                connection.sendall(len(frame).to_bytes(4, "little") + frame)
            answer = connection.recv(1 << 16)
        assert int.from_bytes(answer[5:9], "little") == Supervisor.PROTOCOL

        assert found(second)[1] == {1: False}
