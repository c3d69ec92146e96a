"""A real worker against a scripted server: its daemon or its supervisor is killed, or hands over."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil
import pytest

from orqestra.v1 import worker_pb2 as pb
from tests.support.fifo import Fifo
from tests.support.processes import gone, processes_of
from tests.support.supervising import supervisor_pid
from tests.support.waiting import until
from tests.support.worker_peer import PATIENCE_SECONDS, Peer, Session, shell
from tests.support.working import held, worker_process, working

Phase = pb.HeldAttempt.Phase
# TERM, five seconds later KILL, and the time that pipes are still read.
ORPHANS_END_SECONDS = 15.0
KILLS = 3


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Every command that is started writes the id of its job into it."""
    return tmp_path / "journal"


def noted(journal: Path, job_id: int, script: str) -> pb.Assignment:
    return shell(job_id, f"echo $ORQESTRA_JOB_ID >> {journal}; {script}", timeout_ms=600_000)


def starts(journal: Path) -> Counter[int]:
    return Counter(map(int, journal.read_text().split())) if journal.exists() else Counter()


def ends(journal: Path) -> str:
    return journal.with_suffix(".ends").read_text()


async def stored_output(session: Session) -> bytes:
    """Take a piece of output, and say that it is stored."""
    piece = await session.receive("store_output")
    ack = pb.OutputAck(attempt=piece.attempt, stream=piece.stream, offset=piece.offset, stored=True)
    await session.send(output_ack=ack)
    return bytes(piece.data)


@asynccontextmanager
async def stranger(**environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that no worker has started."""
    process = await asyncio.create_subprocess_exec("sleep", "1000", env=environment)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def group_held_by(supervisor: int, incarnation: str) -> Path | None:
    """Return the control group in which this supervisor puts its commands, if it can make groups here."""
    for descriptor in Path(f"/proc/{supervisor}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed while we looked
            if (link := descriptor.readlink()).name == f"orqestra-{incarnation}":
                return link
    return None


async def ended(process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        await process.communicate()


async def test_commands_go_on_while_daemons_are_killed(peer: Peer, tmp_path: Path, journal: Path, gate: Fifo) -> None:
    # given a job that has ended, one that will, and one that goes on, when the daemon is killed
    state = ("--state-dir", str(tmp_path / "state"))
    over = f"read _ < {gate}; printf '%0{9000}d' 0; echo told >&2; echo > {journal}.over; exit 5"
    async with worker_process(peer.address, *state) as process:
        session = await peer.session()
        first = await session.welcome()
        scripts = {1: "exit 3", 2: over, 3: "echo $$; exec sleep 600"}
        await session.assign(*(noted(journal, job_id, script) for job_id, script in scripts.items()))
        await session.receive("results")
        await until(lambda: starts(journal).total() == 3)
        process.kill()
        await ended(process)
    supervisor = supervisor_pid(tmp_path / "state" / "worker-0")

    # and one of them ends when nobody is there
    gate.release()
    await until(Path(f"{journal}.over").exists)

    # then each of those that come holds what there is, as the same worker in the same life
    for _ in range(KILLS):
        async with worker_process(peer.address, *state) as process:
            session = await peer.session()
            hello = await session.welcome()
            assert (hello.worker_id, hello.incarnation) == (first.worker_id, first.incarnation)
            assert held(hello.held).keys() == {1, 2, 3}
            assert held(hello.held)[3] == Phase.PHASE_RUNNING
            process.kill()
            await ended(process)

    # and the last one tells how they ended, and can end the one that goes on
    async with worker_process(peer.address, *state) as process:
        session = await peer.session()
        await session.welcome()
        output = await stored_output(session)
        one, two = await session.result(1), await session.result(2)
        await session.send(cancel=pb.Cancel(attempts=[shell(3, "").attempt]))
        three = await session.result(3)
        process.send_signal(signal.SIGTERM)
        await ended(process)
    assert (one.reason, one.exit_code) == ("exited", 3)
    assert (two.reason, two.exit_code, two.stderr, output) == ("exited", 5, b"told\n", b"0" * 9000)
    assert three.exit_signal == signal.SIGTERM
    assert await gone(int(three.stdout))

    # and nothing ran twice, and nothing is left
    assert starts(journal) == Counter([1, 2, 3])
    assert await gone(supervisor)
    assert process.returncode == 0


async def test_a_worker_hands_over_to_the_next(peer: Peer, tmp_path: Path, journal: Path, gate: Fifo) -> None:
    state = ("--state-dir", str(tmp_path / "state"))
    async with worker_process(peer.address, *state, "--slots", "1") as process:
        session = await peer.session()
        first = await session.welcome()
        await session.assign(noted(journal, 1, f"read _ < {gate}; echo done"), noted(journal, 2, "echo waited"))
        await session.receive("assign_ack")
        await until(lambda: starts(journal).total() == 1)
        process.send_signal(signal.SIGUSR2)
        await ended(process)
    assert process.returncode == 0

    async with worker_process(peer.address, *state, "--slots", "1") as process:
        session = await peer.session()
        hello = await session.welcome()
        gate.release()
        result, waited = await session.result(1), await session.result(2)

    assert held(hello.held) == dict.fromkeys((1, 2), Phase.PHASE_RUNNING)
    assert (hello.worker_id, hello.incarnation) == (first.worker_id, first.incarnation)
    assert (result.stdout, waited.stdout) == (b"done\n", b"waited\n")
    assert starts(journal) == Counter([1, 2])


async def test_commands_that_nobody_came_for_are_returned(peer: Peer, tmp_path: Path, journal: Path) -> None:
    # given commands, one of which ignores what asks it to end
    options = ("--state-dir", str(tmp_path / "state"), "--orphan-seconds", "1")
    obeys = f"trap 'echo obeyed >> {journal}.ends; exit 4' TERM; echo $$; while :; do sleep 0.1; done"
    ignores = f"trap 'echo ignored >> {journal}.ends' TERM; echo $$; while :; do sleep 0.1; done"
    async with worker_process(peer.address, *options) as process:
        session = await peer.session()
        first = await session.welcome()
        await session.assign(noted(journal, 1, obeys), noted(journal, 2, ignores))
        await until(lambda: starts(journal).total() == 2)
        supervisor = supervisor_pid(tmp_path / "state" / "worker-0")

        # when the daemon is killed, and no other comes in time
        process.kill()
        await ended(process)
    assert await gone(supervisor, ORPHANS_END_SECONDS)

    # then they have ended, one of them by force, and the next start gives them back
    assert sorted(ends(journal).split()) == ["ignored", "obeyed"]
    async with worker_process(peer.address, *options) as process:
        session = await peer.session()
        hello = await session.welcome()
        obeyed, killed = await session.result(1), await session.result(2)
    assert hello.incarnation != first.incarnation
    assert held(hello.held) == {1: Phase.PHASE_FINISHED, 2: Phase.PHASE_FINISHED}
    assert {obeyed.reason, killed.reason} == {"returned"}
    assert (obeyed.exit_code, killed.exit_signal) == (4, signal.SIGKILL)
    for result in (obeyed, killed):
        assert await gone(int(result.stdout.split()[0]))
    assert starts(journal) == Counter([1, 2])


async def test_a_supervisor_that_is_killed_is_replaced(peer: Peer, tmp_path: Path, journal: Path) -> None:
    # given a job that has ended and is not acknowledged, one that runs, and one that waits
    async with worker_process(peer.address, "--state-dir", str(tmp_path / "state"), "--slots", "1") as process:
        session = await peer.session()
        first = await session.welcome()
        pid_file = tmp_path / "pid"
        await session.assign(
            noted(journal, 1, "echo kept"),
            noted(journal, 2, f"echo $$ > {pid_file}; exec sleep 600"),
            noted(journal, 3, "echo waited"),
        )
        await session.receive("results")
        await until(lambda: pid_file.exists() and pid_file.read_text() != "")
        supervisor = supervisor_pid(tmp_path / "state" / "worker-0")

        # when the supervisor is killed
        os.kill(supervisor, signal.SIGKILL)

        # then its command dies, and a new life begins, in which that one is not held
        assert await gone(int(pid_file.read_text()))
        session = await peer.session()
        hello = await session.welcome()
        assert hello.worker_id == first.worker_id
        assert hello.incarnation != first.incarnation
        assert held(hello.held) == {1: Phase.PHASE_FINISHED}
        assert hello.slots == 1

        # and what had ended is told once, and what waited runs when it is assigned again
        await session.assign(noted(journal, 3, "echo waited"))
        kept, waited = await session.result(1), await session.result(3)
        await session.send(list_held=pb.ListHeld(seq=1))
        answer = await session.receive("held")
        process.send_signal(signal.SIGTERM)
        await ended(process)
    assert (kept.stdout, waited.stdout) == (b"kept\n", b"waited\n")
    assert not answer.held
    assert session.waiting("results") == 0
    assert starts(journal) == Counter([1, 2, 3])
    assert process.returncode == 0


async def test_what_commands_of_a_killed_supervisor_left_is_gone_and_strangers_are_not(
    peer: Peer, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    jobs = state / "worker-0" / "jobs"
    other = {"ORQESTRA_TMPDIR": str(state / "worker-1" / "jobs" / "1")}
    async with (
        worker_process(peer.address, "--state-dir", str(state)),
        stranger() as unmarked,
        stranger(**other) as of_another_worker,
    ):
        # given a command with processes in sessions of their own; in a control group, one does without its environment
        session = await peer.session()
        first = await session.welcome()
        supervisor = supervisor_pid(state / "worker-0")
        group = group_held_by(supervisor, first.incarnation)
        ways = ["setsid nohup", "setsid env -i"] if group is not None else ["setsid nohup"]
        files = [tmp_path / f"left-{number}" for number in range(len(ways))]
        leave = "exec sleep 1000 >/dev/null 2>&1 </dev/null"
        left = [f"{way} sh -c 'echo $$ > {file}; {leave}' &" for way, file in zip(ways, files, strict=True)]
        await session.assign(shell(1, f"touch $TMPDIR/file; {' '.join(left)} exec sleep 600"))
        await until(lambda: all(file.exists() and file.read_text() != "" for file in files))
        assert [path.name for path in jobs.rglob("file")] == ["file"]

        # when the supervisor is killed, and the daemon has started another
        os.kill(supervisor, signal.SIGKILL)
        session = await peer.session()
        second = await session.welcome()

        # then all of that is gone, the directory and the group too, and nothing else is
        assert second.incarnation != first.incarnation
        for file in files:
            assert await gone(int(file.read_text()))
        assert list(jobs.iterdir()) == []
        assert group is None or not group.exists()
        for spared in (unmarked, of_another_worker):
            assert psutil.Process(spared.pid).status() == psutil.STATUS_SLEEPING


async def test_without_a_supervisor_there_are_no_slots_until_there_is_one(peer: Peer, tmp_path: Path) -> None:
    async with worker_process(peer.address, "--state-dir", str(tmp_path / "state"), "--slots", "2") as process:
        # given a worker in whose folder nothing can be kept any more
        session = await peer.welcomed(lease_ms=2000)
        directory = tmp_path / "state" / "worker-0"
        (directory / "spool").rename(tmp_path / "away")
        (directory / "spool").touch()

        # when its supervisor is killed, then it says so, and takes nothing
        os.kill(supervisor_pid(directory), signal.SIGKILL)
        session = await peer.session()
        hello = await session.welcome(lease_ms=2000)
        beat = await session.receive("beat", lambda beat: beat.slots == 0)
        assert hello.slots == 0
        assert "supervisor" in beat.health

        # and when that is over, it takes jobs again
        (directory / "spool").unlink()
        (tmp_path / "away").rename(directory / "spool")
        session = await peer.session()
        again = await session.welcome()
        await session.assign(shell(1, "echo well"))
        result = await session.result(1)
        assert process.returncode is None
    assert again.slots == 2
    assert result.stdout == b"well\n"


async def test_a_worker_that_is_told_to_end_leaves_nothing(peer: Peer, tmp_path: Path) -> None:
    async with worker_process(peer.address, "--state-dir", str(tmp_path / "state")) as process:
        session = await peer.welcomed()
        await session.assign(shell(1, "sleep 600 & sleep 600 >/dev/null 2>&1 & true"))
        await session.result(1)
        process.send_signal(signal.SIGTERM)
        await ended(process)

    assert process.returncode == 0
    assert processes_of(str(tmp_path)) == []


async def test_two_workers_of_one_state_directory_have_a_supervisor_each(peer: Peer, tmp_path: Path) -> None:
    # The path of a socket may have 107 bytes.
    state = tmp_path / ("long" * 30)
    async with working(peer, tmp_path, state_dir=state):
        one = await (await peer.session()).welcome()
        async with working(peer, tmp_path, state_dir=state):
            session = await peer.session()
            two = await session.welcome()
            await session.assign(shell(1, "echo well"))
            assert (await session.result(1)).stdout == b"well\n"
            supervisors = {supervisor_pid(state / f"worker-{index}") for index in range(2)}

    assert len(supervisors) == 2
    assert one.incarnation != two.incarnation
    for pid in supervisors:
        assert await gone(pid)
