"""What waits for a slot, which commands that last do not give up."""

from pathlib import Path

from orqestra.v1.worker_pb2 import Result
from orqestra.worker.commands import LATE_SECONDS, Commands
from orqestra.worker.outcome import NO_SLOT, Finished, HandBack
from orqestra.worker.outgoing import attempt_of
from orqestra.worker.shell import Shell
from orqestra.worker.slots import Slots
from orqestra.worker.supervised import Supervisor
from orqestra.worker.surroundings import Surroundings
from tests.support.fifo import Fifo
from tests.support.supervising import exits, supervision
from tests.support.worker_peer import shell


class Time:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_what_waits_for_a_second_is_handed_back_and_what_runs_is_not(tmp_path: Path) -> None:
    clock, slots = Time(), Slots(1)
    commands = Commands(slots, Shell({b"PATH": b"/usr/bin:/bin"}, tmp_path / "jobs", Surroundings()), monotonic=clock)
    with supervision(tmp_path) as kept, Fifo(tmp_path / "started") as started, Fifo(tmp_path / "go") as go:
        # given one slot, a command that has it and one that waits behind it
        supervisor = kept.open()
        commands.attach(supervisor, ())
        commands.allow(clock.now * 1e6)
        jobs = [shell(1, f"echo > {started}; read _ < {go}"), shell(2, "true")]
        for job in jobs:
            slots.wait(attempt_of(job.attempt), job)
        assert commands.hand_over(frozenset()) == []
        await started.line()

        # when a second is not over yet, and then it is
        clock.now += LATE_SECONDS / 2
        commands.withdraw_late()
        clock.now += LATE_SECONDS
        commands.withdraw_late()

        # then the one is handed back, and the other ends as it would have
        assert _ends(commands, supervisor, 1) == {2: HandBack(reason=NO_SLOT)}
        go.release()
        finished = _ends(commands, supervisor, 1)[1]
        assert isinstance(finished, Finished)
        assert Result.FromString(finished.result).ok


async def test_what_has_a_slot_and_is_not_started_yet_is_not_handed_back(tmp_path: Path) -> None:
    clock, slots = Time(), Slots(2)
    commands = Commands(slots, Shell({b"PATH": b"/usr/bin:/bin"}, tmp_path / "jobs", Surroundings()), monotonic=clock)
    with supervision(tmp_path) as kept:
        # given two slots and three commands, none of which is started
        supervisor = kept.open()
        commands.attach(supervisor, ())
        commands.allow(None)
        for job in (shell(1, "true"), shell(2, "true"), shell(3, "true")):
            slots.wait(attempt_of(job.attempt), job)
        assert commands.hand_over(frozenset()) == []

        # when they have waited for more than a second
        clock.now += 2 * LATE_SECONDS
        commands.withdraw_late()

        # then the one without a slot is handed back, and the others run as soon as they may
        assert _ends(commands, supervisor, 1) == {3: HandBack(reason=NO_SLOT)}
        commands.allow(clock.now * 1e6)
        ended = _ends(commands, supervisor, 2)
        assert ended.keys() == {1, 2}
        assert all(isinstance(each, Finished) for each in ended.values())


def _ends(commands: Commands, supervisor: Supervisor, count: int) -> dict[int, Finished | HandBack]:
    """Return what is told of the next jobs that end, which may be told of at once or one by one."""
    ends = commands.ends(exits(supervisor, count))
    return {occupied.attempt.job_id: told for occupied, told in ends}
