"""A supervisor as its daemon sees it, with real processes.

How commands run is tested in crates/dispatch/tests/executor; here is what comes through the line.
"""

import asyncio
import errno
import os
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from orqestra.model.limits import ARGUMENT_BYTES
from orqestra.worker.supervised import Command, Exit, Live, Supervisor
from tests.support.supervising import (
    PATIENCE_SECONDS,
    Report,
    command,
    ends,
    exits,
    pids,
    run,
    seen,
    shell,
    supervised,
    supervision,
    taken,
)

MB = 1 << 20
# A supervisor that has run a thousand commands or holds five thousand.
RSS_BYTES = 15 * MB
# Signals 32 and 33: make lets its children ignore them, and no call of the C library, or of Python, undoes that.
OF_THE_C_LIBRARY = 0b11 << 31


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    with supervised(tmp_path, drain_ms=300) as supervisor:
        yield supervisor


@pytest.mark.everywhere
def test_a_command_runs_and_everything_is_told(supervisor: Supervisor) -> None:
    before = time.time_ns() // 1000
    exit_ = run(supervisor, shell(r"printf 'a\0\377'; printf b >&2; exit 3", key=2**62 - 1, tag=b"\xff\0"))
    assert (exit_.key, exit_.tag) == (2**62 - 1, b"\xff\0")
    assert (exit_.reason, exit_.exit_code, exit_.signal) == ("exited", 3, None)
    assert (exit_.error, exit_.errno, exit_.stage) == (None, None, None)
    assert (exit_.stdout, exit_.stdout_bytes) == (b"a\0\xff", 3)
    assert (exit_.stderr, exit_.stderr_bytes) == (b"b", 1)
    assert not exit_.truncated
    assert not exit_.killed
    assert before <= exit_.started_at_us <= time.time_ns() // 1000
    assert 0 < exit_.wall_us < 10_000_000
    assert exit_.user_us + exit_.system_us > 0


@pytest.mark.everywhere
def test_a_signal_is_not_an_exit_code(supervisor: Supervisor) -> None:
    exit_ = run(supervisor, shell("kill -SEGV $$"))
    assert (exit_.reason, exit_.exit_code, exit_.signal) == ("signalled", None, signal.SIGSEGV)


@pytest.mark.everywhere
def test_arguments_environment_directory_and_input_are_exact(supervisor: Supervisor) -> None:
    env = [(b"B", b"1\n2"), (b"A", b"\xff")]
    assert run(supervisor, command(argv=[b"/usr/bin/env", b"-0"], env=env)).stdout == b"B=1\n2\0A=\xff\0"
    printf = command(argv=[b"printf", b"%s|", b"a b", b"$HOME", b"*"])
    assert run(supervisor, printf).stdout == b"a b|$HOME|*|"
    payload = bytes(range(256)) * 1000
    assert run(supervisor, command(argv=[b"cat"], stdin=payload)).stdout == payload
    assert run(supervisor, command(argv=[b"cat"])).stdout == b""
    assert run(supervisor, command(argv=[b"pwd"], cwd=b"/usr")).stdout == b"/usr\n"


@pytest.mark.everywhere
def test_a_command_has_a_folder_of_its_own_which_goes_with_it(supervisor: Supervisor, tmp_path: Path) -> None:
    jobs = tmp_path / "jobs"
    script = "echo $TMPDIR; cat $ORQESTRA_PREVIOUS_OUTPUT_FILE; cd $ORQESTRA_TMPDIR && mkdir -p a/b && touch a/b/c"
    exit_ = run(supervisor, shell(script, directory=bytes(jobs), previous_output=b"\xff\n"))
    own, previous = exit_.stdout.splitlines()
    assert (Path(os.fsdecode(own)).parent, previous, exit_.stderr) == (jobs, b"\xff", b"")
    assert not any(jobs.rglob("*"))


@pytest.mark.everywhere
def test_limits_are_passed_on(supervisor: Supervisor) -> None:
    limited = shell("ulimit -n; nice", limits={"open_files": 77, "nice": 5})
    assert run(supervisor, limited).stdout == b"77\n5\n"
    with pytest.raises(ValueError, match='limits: "memory" is none'):
        shell("true", limits={"memory": 1})


@pytest.mark.everywhere
def test_what_stays_in_the_background_is_told(supervisor: Supervisor) -> None:
    script = "sleep 600 >/dev/null 2>&1 & echo $!"
    stays = run(supervisor, shell(script, allow_background=True))
    assert (stays.killed_processes, stays.left_processes) == (0, 1)
    os.kill(int(stays.stdout), signal.SIGKILL)
    goes = run(supervisor, shell(script))
    assert (goes.killed_processes, goes.left_processes) == (1, 0)
    ends(int(goes.stdout))


@pytest.mark.everywhere
def test_commands_start_within_bounds_and_in_order(supervisor: Supervisor) -> None:
    for_ever = 2**63 - 1
    supervisor.bound(1, for_ever)
    supervisor.start([shell("echo $$; exec sleep 600", key=key) for key in (1, 2, 3)])
    pids(supervisor, [1])
    supervisor.withdraw([1, 2])
    (withdrawn,) = exits(supervisor, 1)
    assert (withdrawn.key, withdrawn.reason, withdrawn.started_at_us) == (2, "cancelled", 0)
    # What waits when its time is over waits for another time.
    supervisor.bound(1, 0)
    supervisor.kill([1])
    assert exits(supervisor, 1)[0].key == 1
    supervisor.bound(1, for_ever)
    pids(supervisor, [3])
    supervisor.kill([3])
    assert exits(supervisor, 1)[0].started_at_us > 0


@pytest.mark.everywhere
def test_a_child_of_the_supervisor_starts_afresh(supervisor: Supervisor) -> None:
    status = status_of_a_child(supervisor)
    assert (status["Umask"], int(status["SigBlk"], 16)) == ("0022", 0)
    assert int(status["SigIgn"], 16) & ~OF_THE_C_LIBRARY == 0
    script = "n=0; while [ $n -lt 99 ]; do [ -e /proc/$$/fd/$n ] && echo $n; n=$((n+1)); done"
    assert run(supervisor, shell(script)).stdout == b"0\n1\n2\n"
    assert run(supervisor, shell("yes | head -1")).stdout == b"y\n"


def test_a_child_of_the_supervisor_ignores_no_signal_at_all(supervisor: Supervisor) -> None:
    assert int(status_of_a_child(supervisor)["SigIgn"], 16) == 0


@pytest.mark.everywhere
@pytest.mark.parametrize(
    ("refused", "stage", "code"),
    [
        (command(argv=[b"not-there"]), "exec", errno.ENOENT),
        (command(argv=[b"/etc/passwd"]), "exec", errno.EACCES),
        (command(argv=[b"true", b"x" * (ARGUMENT_BYTES + 1)]), "exec", errno.E2BIG),
        (command(argv=[b"true"], cwd=b"/not/there"), "cwd", errno.ENOENT),
        (command(argv=[b"true", b"a\0b"]), "command", errno.EINVAL),
        (command(argv=[b"true"], env=[(b"A=B", b"")]), "command", errno.EINVAL),
        (command(argv=[]), "command", errno.EINVAL),
    ],
)
def test_what_cannot_be_run_says_why(supervisor: Supervisor, refused: Command, stage: str, code: int) -> None:
    exit_ = run(supervisor, refused)
    assert (exit_.reason, exit_.stage, exit_.errno) == ("spawn_failed", stage, code)
    assert exit_.error
    assert (exit_.exit_code, exit_.signal, exit_.started_at_us) == (None, None, 0)


def test_the_longest_argument_is_as_long_as_the_kernel_takes(supervisor: Supervisor) -> None:
    assert run(supervisor, command(argv=[b"true", b"x" * ARGUMENT_BYTES])).exit_code == 0


@pytest.mark.everywhere
def test_a_timeout_ends_it_and_kill_follows_the_grace(supervisor: Supervisor) -> None:
    obeys = run(supervisor, shell("sleep 60", timeout_ms=100))
    assert (obeys.reason, obeys.signal, obeys.killed) == ("timeout", signal.SIGTERM, False)
    script = "trap '' TERM; while :; do sleep 1; done"
    ignores = run(supervisor, shell(script, timeout_ms=100, grace_ms=200))
    assert (ignores.signal, ignores.killed) == (signal.SIGKILL, True)
    assert 300_000 <= ignores.wall_us < 5_000_000


@pytest.mark.everywhere
def test_cancel_reaches_what_runs_and_what_waits(supervisor: Supervisor) -> None:
    supervisor.start([shell("exec sleep 60", key=key) for key in range(100)])
    supervisor.cancel(range(100))
    ended = exits(supervisor, 100)
    assert {exit_.key for exit_ in ended} == set(range(100))
    assert {exit_.reason for exit_ in ended} == {"cancelled"}


@pytest.mark.everywhere
@pytest.mark.alone
def test_a_child_that_outlives_its_shell_holds_nothing(supervisor: Supervisor) -> None:
    start = time.monotonic()
    exit_ = run(supervisor, shell("sleep 600 & echo $!"))
    assert time.monotonic() - start < 5
    assert exit_.exit_code == 0
    ends(int(exit_.stdout))


@pytest.mark.everywhere
def test_output_beyond_the_bounds_keeps_head_tail_and_total(supervisor: Supervisor) -> None:
    exit_ = run(supervisor, shell("seq 1 400000"))
    whole = b"".join(b"%d\n" % number for number in range(1, 400_001))
    assert exit_.stdout == whole[: 256 * 1024] + whole[-768 * 1024 :]
    assert (exit_.stdout_bytes, exit_.truncated) == (len(whole), True)


def test_bounds_of_nothing_keep_nothing(tmp_path: Path) -> None:
    with supervised(tmp_path, head_bytes=0, tail_bytes=0) as supervisor:
        exit_ = run(supervisor, shell("echo 12345"))
    assert (exit_.stdout, exit_.stdout_bytes, exit_.truncated) == (b"", 6, True)


@pytest.mark.everywhere
def test_live_output_comes_before_the_end(supervisor: Supervisor) -> None:
    supervisor.start([shell("echo early; exec sleep 60", key=1)])
    assert seen(supervisor, b"early\n") == b"early\n"
    supervisor.unfollow(1)
    supervisor.follow(1, 3, 0)
    (live,) = taken(supervisor)
    assert isinstance(live, Live)
    assert (live.key, live.stream, live.offset, live.data) == (1, 1, 3, b"ly\n")
    supervisor.kill([1])
    assert exits(supervisor, 1)[0].stdout == b"early\n"


@pytest.mark.everywhere
@pytest.mark.alone
async def test_an_event_loop_is_woken_in_batches_and_never_blocked(supervisor: Supervisor) -> None:
    loop = asyncio.get_running_loop()
    reports: list[Report] = []
    done = asyncio.Event()

    def take() -> None:
        reports.extend(supervisor.reports())
        if len(reports) == 1000:
            done.set()

    loop.add_reader(supervisor.fileno(), take)
    start = time.monotonic()
    supervisor.start([shell(f"echo {key}", key=key) for key in range(1000)])
    assert time.monotonic() - start < 0.5
    async with asyncio.timeout(2 * PATIENCE_SECONDS):
        await done.wait()
    loop.remove_reader(supervisor.fileno())
    written = {exit_.key: exit_.stdout for exit_ in reports if isinstance(exit_, Exit)}
    assert written == {key: b"%d\n" % key for key in range(1000)}
    assert supervisor.reports() == []


def test_a_supervisor_is_small_after_a_thousand_commands(supervisor: Supervisor) -> None:
    process = psutil.Process(supervisor.pid)
    for start in range(0, 1000, 100):
        keys = range(start, start + 100)
        supervisor.start([Command(key=key, argv=[b"/bin/echo", b"out"], env=[]) for key in keys])
        exits(supervisor, 100)
        supervisor.forget(keys)
    assert process.memory_info().rss < RSS_BYTES


def test_a_supervisor_is_small_while_and_after_five_thousand_commands_wait(tmp_path: Path) -> None:
    # Given: nothing may start, and what waits is as long as what a worker hands over.
    environment = [(f"VARIABLE_{number}".encode(), b"%024d" % number) for number in range(7)]
    fields = {"env": environment, "directory": os.fsencode(tmp_path / "jobs"), "cwd": b"/tmp", "tag": bytes(20)}
    with supervised(tmp_path) as supervisor:
        process = psutil.Process(supervisor.pid)
        supervisor.bound(4, 0)
        # When
        supervisor.start([command(key=key, argv=[b"/bin/sh", b"-c", b"true"], **fields) for key in range(5000)])
        supervisor.start([shell("exit 0", key=5000)])
        supervisor.withdraw([5000])
        (last,) = exits(supervisor, 1)
        assert (last.key, last.reason) == (5000, "cancelled")
        # Then
        assert process.memory_info().rss < RSS_BYTES
        supervisor.bound(4, 2**63)
        ended = 0
        while ended < 5000:
            some = exits(supervisor, 1)
            assert {exit_.reason for exit_ in some} == {"exited"}
            supervisor.forget([exit_.key for exit_ in some])
            ended += len(some)
        assert process.memory_info().rss < RSS_BYTES


@pytest.mark.everywhere
def test_keys_and_bounds_that_are_refused(supervisor: Supervisor) -> None:
    with pytest.raises(ValueError, match=r"key: 4611686018427387904 is not below 2 \*\* 62"):
        Command(key=2**62, argv=[b"true"], env=[])
    # A key that is in use is passed over.
    supervisor.start([shell("echo first; exec sleep 60", key=1)])
    supervisor.start([shell("echo second", key=1), shell("true", key=2)])
    assert exits(supervisor, 1)[0].key == 2
    supervisor.kill([1])
    assert b"second" not in exits(supervisor, 1)[0].stdout


@pytest.mark.everywhere
def test_what_is_asked_of_a_key_that_nobody_has_does_nothing(supervisor: Supervisor) -> None:
    for ask in (supervisor.cancel, supervisor.kill, supervisor.forget, supervisor.set_aside):
        ask([7])
    supervisor.follow(7, 0, 0)
    supervisor.unfollow(7)
    assert run(supervisor, shell("echo well")).stdout == b"well\n"


def test_after_a_stop_it_ends_with_the_last_command(supervisor: Supervisor) -> None:
    supervisor.start([shell("echo; read _; exit 3", stdin=b"\n", key=1), shell("echo $$; exec sleep 600", key=2)])
    exits(supervisor, 1)
    supervisor.forget([1])
    (pid,) = pids(supervisor, [2])
    supervisor.stop()
    supervisor.kill([2])
    assert exits(supervisor, 1)[0].reason == "cancelled"
    supervisor.forget([2])
    supervisor.hang_up()
    ends(pid)
    assert ends(supervisor.pid) < 2


def test_commands_die_with_a_supervisor_that_is_killed(supervisor: Supervisor) -> None:
    supervisor.start([shell("trap '' TERM; echo $$; exec sleep 600", key=key) for key in (1, 2)])
    commands = pids(supervisor, [1, 2])
    os.kill(supervisor.pid, signal.SIGKILL)
    for pid in commands:
        ends(pid)
    select.select([supervisor.fileno()], [], [], PATIENCE_SECONDS)
    assert supervisor.reports() == []
    assert supervisor.closed


def test_what_asks_a_process_to_end_does_not_end_it(tmp_path: Path) -> None:
    with supervision(tmp_path) as kept:
        supervisor = kept.open()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            os.kill(supervisor.pid, number)
        assert run(supervisor, shell("echo here")).stdout == b"here\n"


def status_of_a_child(supervisor: Supervisor) -> dict[str, str]:
    """Return what the kernel says of a command, by name."""
    lines = run(supervisor, command(argv=[b"cat", b"/proc/self/status"])).stdout.decode().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
