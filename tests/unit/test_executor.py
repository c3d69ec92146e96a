"""The executor through its Python door, with real processes.

What the executor does is tested in crates/dispatch/tests/executor; here is what Python sees of it.
"""

import asyncio
import errno
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from orqestra._dispatch import Command, Executor, Exit, Live

PATIENCE_SECONDS = 20.0
PATH = [(b"PATH", b"/usr/bin:/bin")]


@pytest.fixture
def executor() -> Iterator[Executor]:
    executor = Executor(drain_ms=300)
    yield executor
    executor.stop(True)


def shell(script: str, *, key: int = 1, timeout_ms: int = 0, grace_ms: int = 5000) -> Command:
    argv = [b"sh", b"-c", script.encode()]
    return Command(key=key, argv=argv, env=PATH, timeout_ms=timeout_ms, grace_ms=grace_ms)


def run(executor: Executor, command: Command) -> Exit:
    executor.start([command])
    return exits(executor, 1)[0]


def exits(executor: Executor, count: int) -> list[Exit]:
    """Take reports until `count` commands have ended."""
    found: list[Exit] = []
    while len(found) < count:
        found += [report for report in taken(executor) if isinstance(report, Exit)]
    return found


def seen(executor: Executor, expected: bytes) -> int:
    """Follow command 1 until it has written what is expected; return at which offset that began."""
    executor.follow(1, 0, 0)
    while True:
        for report in taken(executor):
            assert isinstance(report, Live), report
            if expected in report.data:
                return report.offset


def taken(executor: Executor) -> list[Exit | Live]:
    ready, _, _ = select.select([executor.fileno()], [], [], PATIENCE_SECONDS)
    assert ready, "no report in time"
    return executor.reports()


def test_a_command_runs_and_everything_is_told(executor: Executor) -> None:
    before = time.time_ns() // 1000
    exit_ = run(executor, shell(r"printf 'a\0\377'; printf b >&2; exit 3", key=2**62 - 1))
    assert exit_.key == 2**62 - 1
    assert (exit_.reason, exit_.exit_code, exit_.signal) == ("exited", 3, None)
    assert (exit_.error, exit_.errno, exit_.stage) == (None, None, None)
    assert (exit_.stdout, exit_.stdout_bytes) == (b"a\0\xff", 3)
    assert (exit_.stderr, exit_.stderr_bytes) == (b"b", 1)
    assert not exit_.truncated
    assert not exit_.killed
    assert before <= exit_.started_at_us <= time.time_ns() // 1000
    assert 0 < exit_.wall_us < 10_000_000
    assert exit_.user_us + exit_.system_us > 0


def test_a_signal_is_not_an_exit_code(executor: Executor) -> None:
    exit_ = run(executor, shell("kill -SEGV $$"))
    assert (exit_.reason, exit_.exit_code, exit_.signal) == ("signalled", None, signal.SIGSEGV)


def test_arguments_environment_directory_and_input_are_exact(executor: Executor) -> None:
    env = [(b"B", b"1\n2"), (b"A", b"\xff")]
    assert run(executor, Command(key=1, argv=[b"/usr/bin/env", b"-0"], env=env)).stdout == b"B=1\n2\0A=\xff\0"
    printf = Command(key=1, argv=[b"printf", b"%s|", b"a b", b"$HOME", b"*"], env=PATH)
    assert run(executor, printf).stdout == b"a b|$HOME|*|"
    payload = bytes(range(256)) * 1000
    assert run(executor, Command(key=1, argv=[b"cat"], env=PATH, stdin=payload)).stdout == payload
    assert run(executor, Command(key=1, argv=[b"cat"], env=PATH)).stdout == b""
    assert run(executor, Command(key=1, argv=[b"pwd"], env=PATH, cwd=b"/usr")).stdout == b"/usr\n"


def test_a_child_of_python_starts_afresh(executor: Executor) -> None:
    assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN
    status = run(executor, Command(key=1, argv=[b"cat", b"/proc/self/status"], env=PATH)).stdout
    for line in (b"Umask:\t0022", b"SigIgn:\t0000000000000000", b"SigBlk:\t0000000000000000"):
        assert line in status
    script = "n=0; while [ $n -lt 99 ]; do [ -e /proc/$$/fd/$n ] && echo $n; n=$((n+1)); done"
    descriptor = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(descriptor, True)
    assert run(executor, shell(script)).stdout == b"0\n1\n2\n"
    os.close(descriptor)
    assert run(executor, shell("yes | head -1")).stdout == b"y\n"


@pytest.mark.parametrize(
    ("command", "stage", "code"),
    [
        (Command(key=1, argv=[b"not-there"], env=PATH), "exec", errno.ENOENT),
        (Command(key=1, argv=[b"/etc/passwd"], env=PATH), "exec", errno.EACCES),
        (Command(key=1, argv=[b"true", b"x" * 200_000], env=PATH), "exec", errno.E2BIG),
        (Command(key=1, argv=[b"true"], env=PATH, cwd=b"/not/there"), "cwd", errno.ENOENT),
        (Command(key=1, argv=[b"true", b"a\0b"], env=PATH), "command", errno.EINVAL),
        (Command(key=1, argv=[b"true"], env=[(b"A=B", b"")]), "command", errno.EINVAL),
        (Command(key=1, argv=[], env=PATH), "command", errno.EINVAL),
    ],
)
def test_what_cannot_be_run_says_why(executor: Executor, command: Command, stage: str, code: int) -> None:
    exit_ = run(executor, command)
    assert (exit_.reason, exit_.stage, exit_.errno) == ("spawn_failed", stage, code)
    assert exit_.error
    assert (exit_.exit_code, exit_.signal, exit_.started_at_us) == (None, None, 0)


def test_a_timeout_ends_it_and_kill_follows_the_grace(executor: Executor) -> None:
    obeys = run(executor, shell("sleep 60", timeout_ms=100))
    assert (obeys.reason, obeys.signal, obeys.killed) == ("timeout", signal.SIGTERM, False)
    script = "trap '' TERM; while :; do sleep 1; done"
    ignores = run(executor, shell(script, timeout_ms=100, grace_ms=200))
    assert (ignores.reason, ignores.signal, ignores.killed) == ("timeout", signal.SIGKILL, True)
    assert 300_000 <= ignores.wall_us < 1_300_000


def test_cancel_reaches_what_runs_and_what_waits(executor: Executor) -> None:
    executor.start([shell("exec sleep 60", key=key) for key in range(100)])
    executor.cancel(range(100))
    ended = exits(executor, 100)
    assert {exit_.key for exit_ in ended} == set(range(100))
    assert {exit_.reason for exit_ in ended} == {"cancelled"}
    assert any(exit_.started_at_us == 0 for exit_ in ended)
    assert executor.running() == 0


def test_a_child_that_outlives_its_shell_holds_nothing(executor: Executor) -> None:
    start = time.monotonic()
    exit_ = run(executor, shell("sleep 600 & echo $!"))
    assert time.monotonic() - start < 2
    assert exit_.exit_code == 0
    assert_dies(int(exit_.stdout))


def test_output_beyond_the_bounds_keeps_head_tail_and_total(executor: Executor) -> None:
    exit_ = run(executor, shell("seq 1 400000"))
    whole = b"".join(b"%d\n" % number for number in range(1, 400_001))
    assert exit_.stdout == whole[: 256 * 1024] + whole[-768 * 1024 :]
    assert (exit_.stdout_bytes, exit_.truncated) == (len(whole), True)


def test_bounds_of_nothing_keep_nothing() -> None:
    executor = Executor(head_bytes=0, tail_bytes=0)
    exit_ = run(executor, shell("echo 12345"))
    assert (exit_.stdout, exit_.stdout_bytes, exit_.truncated) == (b"", 6, True)
    executor.stop(True)


def test_live_output_comes_before_the_end(executor: Executor) -> None:
    executor.start([shell("echo early; exec sleep 60")])
    assert seen(executor, b"early\n") == 0
    executor.unfollow(1)
    executor.follow(1, 3, 0)
    (live,) = taken(executor)
    assert isinstance(live, Live)
    assert (live.key, live.stream, live.offset, live.data) == (1, 1, 3, b"ly\n")
    executor.kill([1])
    assert exits(executor, 1)[0].stdout == b"early\n"


async def test_an_event_loop_is_woken_in_batches_and_never_blocked() -> None:
    executor = Executor()
    loop = asyncio.get_running_loop()
    reports: list[Exit | Live] = []
    done = asyncio.Event()

    def take() -> None:
        reports.extend(executor.reports())
        if len(reports) == 1000:
            done.set()

    loop.add_reader(executor.fileno(), take)
    start = time.monotonic()
    executor.start([shell(f"echo {key}", key=key) for key in range(1000)])
    assert time.monotonic() - start < 0.2
    async with asyncio.timeout(PATIENCE_SECONDS):
        await done.wait()
    loop.remove_reader(executor.fileno())
    written = {exit_.key: exit_.stdout for exit_ in reports if isinstance(exit_, Exit)}
    assert written == {key: b"%d\n" % key for key in range(1000)}
    assert executor.reports() == []
    executor.stop(True)


def test_keys_and_bounds_that_are_refused(executor: Executor) -> None:
    with pytest.raises(ValueError, match=r"key: 4611686018427387904 is not below 2 \*\* 62"):
        Command(key=2**62, argv=[b"true"], env=[])
    with pytest.raises(ValueError, match="spawners: 0 is not within 1 to 64"):
        Executor(spawners=0)
    executor.start([shell("exec sleep 60")])
    with pytest.raises(ValueError, match="key: 1 belongs to a command that has not ended"):
        executor.start([shell("true", key=2), shell("true")])
    assert executor.running() == 1


def test_after_stop_nothing_runs_and_nothing_starts(executor: Executor) -> None:
    executor.start([shell("trap '' TERM; sleep 600", key=key) for key in range(10)])
    executor.stop(True)
    assert executor.running() == 0
    assert {exit_.reason for exit_ in exits(executor, 10)} == {"cancelled"}
    with pytest.raises(RuntimeError, match="the executor is stopped"):
        executor.start([shell("true")])


def test_commands_die_with_a_daemon_that_is_killed() -> None:
    daemon = """
import select
from orqestra._dispatch import Command, Executor
executor = Executor()
command = Command(key=1, argv=[b"sh", b"-c", b"echo $$; exec sleep 600"], env=[(b"PATH", b"/usr/bin:/bin")])
executor.start([command])
executor.follow(1, 0, 0)
select.select([executor.fileno()], [], [])
print(executor.reports()[0].data.decode(), flush=True)
select.select([], [], [])
"""
    with subprocess.Popen([sys.executable, "-c", daemon], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
    assert_dies(pid)


def test_a_process_that_ignores_its_children_is_told_so() -> None:
    daemon = """
import select, signal
from orqestra._dispatch import Command, Executor
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
executor = Executor()
executor.start([Command(key=1, argv=[b"true"], env=[(b"PATH", b"/usr/bin:/bin")])])
select.select([executor.fileno()], [], [])
[exit] = executor.reports()
assert (exit.reason, exit.exit_code, exit.signal, exit.stage) == ("exited", None, None, "reap"), exit
"""
    subprocess.run([sys.executable, "-c", daemon], check=True, timeout=PATIENCE_SECONDS)


def assert_dies(pid: int) -> None:
    """Wait until the process, which need not be a child of ours, has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ready, _, _ = select.select([descriptor], [], [], PATIENCE_SECONDS)
    os.close(descriptor)
    assert ready, f"process {pid} lives on"
