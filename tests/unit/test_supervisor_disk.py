"""What a supervisor keeps on disk: there after any end, told from memory while the disk takes nothing."""

import os
import resource
import signal
from pathlib import Path

import pytest

from orqestra._dispatch import Gone, Supervisor
from tests.chaos.disk import fill, put_disk, take_away
from tests.support.freezing import FrozenThread
from tests.support.spooling import cut_end, rewrite, segments
from tests.support.supervising import Report, ends, exits, run, shell, supervision, taken, told

COUNT = 100
DISK_MB = 32
OUTPUT_BYTES = 1000


def held(supervisor: Supervisor) -> list[int]:
    return [key for key, _, _ in supervisor.held]


def aside(directory: Path) -> list[bytes]:
    return [file.read_bytes() for file in (directory / "spool" / "aside").iterdir()]


@pytest.mark.parametrize("told_of", [1, COUNT // 2, COUNT])
def test_what_a_killed_supervisor_has_told_is_there_once(tmp_path: Path, told_of: int) -> None:
    # given a supervisor that is killed when it has told of some ends, the first of which is forgotten
    with supervision(tmp_path) as kept:
        first = kept.open()
        commands = [shell(f"echo {key}; exit {key}", key=key, tag=b"%d" % key) for key in range(COUNT)]
        first.start(commands)
        known = {exit_.key: exit_ for exit_ in exits(first, told_of)}
        os.kill(first.pid, signal.SIGKILL)
        kept.lost()

        # when the next one is started
        second = kept.open()

        # then it holds them all as ended, maybe some more, and tells them as they were
        assert set(known) <= set(held(second))
        again = {exit_.key: exit_ for exit_ in exits(second, len(second.held))}
        assert {(exit_.exit_code, exit_.stdout, exit_.tag) for exit_ in again.values()} == {
            (key, b"%d\n" % key, b"%d" % key) for key in again
        }
        assert all(again[key].started_at_us == known[key].started_at_us for key in known)
        assert (second.torn, second.damaged) == (0, 0)

        # and once they are forgotten nothing is left
        second.forget(list(again))
        second.stop()
        second.hang_up()
        ends(second.pid)
        kept.lost()
        assert segments(tmp_path) == []
        assert kept.open().held == []


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_disk_that_takes_nothing_is_told_and_the_end_of_it(tmp_path: Path, forgotten: bool) -> None:
    with supervision(tmp_path) as kept:
        supervisor = kept.open()
        supervisor.start([shell("echo before", key=1)])
        exits(supervisor, 1)
        assert supervisor.health == ""

        # when no file may grow any more, then ends are told all the same, and that it is so
        _, most = resource.prlimit(supervisor.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(supervisor.pid, resource.RLIMIT_FSIZE, (0, most))
        for key in (2, 3):
            supervisor.start([shell("echo meanwhile", key=key, cwd=b"/")])
            assert exits(supervisor, 1)[0].stdout == b"meanwhile\n"
        told(supervisor, lambda: supervisor.health.startswith("spool: File too large"))
        if forgotten:
            supervisor.forget([1, 2, 3])

        # when they may, then that is told, and what was not forgotten is durable
        resource.prlimit(supervisor.pid, resource.RLIMIT_FSIZE, (most, most))
        told(supervisor, lambda: supervisor.health == "")
        if forgotten:
            supervisor.stop()
            supervisor.hang_up()
            ends(supervisor.pid)
        kept.lost()
        assert held(kept.open()) == ([] if forgotten else [1, 2, 3])


def test_a_daemon_that_comes_is_told_of_a_disk_that_takes_nothing(tmp_path: Path) -> None:
    with supervision(tmp_path) as first, supervision(tmp_path) as second:
        supervisor = first.open()
        _, most = resource.prlimit(supervisor.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(supervisor.pid, resource.RLIMIT_FSIZE, (0, most))
        supervisor.start([shell("echo meanwhile", key=1)])
        exits(supervisor, 1)
        told(supervisor, lambda: supervisor.health != "")
        supervisor.hang_up()

        again = second.open()

        assert again.held == [(1, b"", True)]
        assert exits(again, 1)[0].stdout == b"meanwhile\n"
        assert again.health.startswith("spool: File too large")


def test_a_disk_without_room_takes_what_waits_when_there_is_some(tmp_path: Path) -> None:
    directory = tmp_path / "worker-0"
    put_disk(directory, DISK_MB)
    try:
        with supervision(directory) as kept:
            supervisor = kept.open()
            fill(directory / "filler")
            supervisor.start([shell("head -c 200000 /dev/urandom", key=key) for key in (1, 2)])
            assert {len(exit_.stdout) for exit_ in exits(supervisor, 2)} == {200_000}
            told(supervisor, lambda: supervisor.health.startswith("spool: No space left on device"))

            (directory / "filler").unlink()
            told(supervisor, lambda: supervisor.health == "")
            kept.lost()
            assert held(kept.open()) == [1, 2]
    finally:
        take_away(directory)


def test_a_disk_that_does_not_answer_is_trouble_until_it_does(tmp_path: Path) -> None:
    with supervision(tmp_path) as kept:
        supervisor = kept.open()
        run(supervisor, shell("true"))
        with FrozenThread(supervisor.pid, "spool"):
            # when it has taken too long, then ends are told from memory, and those that come after it at once
            supervisor.start([shell("echo late", tag=b"aside", key=1), shell("echo later", key=2)])
            assert {exit_.stdout for exit_ in exits(supervisor, 2)} == {b"late\n", b"later\n"}
            told(supervisor, lambda: supervisor.health == "spool: the disk does not answer")
            supervisor.start([shell("echo at once", key=3)])
            assert exits(supervisor, 1)[0].stdout == b"at once\n"
            # and when all are forgotten before the disk takes them, then its answer is noticed nevertheless
            supervisor.set_aside([1])
            supervisor.forget([2, 3])
        told(supervisor, lambda: supervisor.health == "")

        supervisor.stop()
        supervisor.hang_up()
        ends(supervisor.pid)
        kept.lost()
        assert kept.open().held == []
    (record,) = aside(tmp_path)
    assert b"late\n" in record


async def test_a_supervisor_that_stops_does_not_wait_for_the_disk(tmp_path: Path) -> None:
    with supervision(tmp_path) as kept:
        supervisor = kept.open()
        run(supervisor, shell("true"))
        with FrozenThread(supervisor.pid, "spool") as disk:
            supervisor.start([shell("echo; exec sleep 600", key=1)])
            supervisor.kill([1])
            supervisor.stop()
            assert exits(supervisor, 1)[0].reason == "cancelled"
            supervisor.forget([1])
            supervisor.hang_up()
            await disk.ended()


def test_what_is_set_aside_is_kept_and_told_no_more(tmp_path: Path) -> None:
    with supervision(tmp_path) as kept:
        supervisor = kept.open()
        supervisor.start([shell("echo whose?", tag=b"tag", key=1), shell("echo mine", key=2)])
        exits(supervisor, 2)
        supervisor.set_aside([1])
        supervisor.stop()
        supervisor.hang_up()
        ends(supervisor.pid)
        kept.lost()

        assert held(kept.open()) == [2]
    (record,) = aside(tmp_path)
    assert b"tag" in record
    assert b"whose?\n" in record


def spooled(directory: Path, *, count: int) -> None:
    """Leave the ends of so many commands on disk, as a supervisor that was killed does."""
    with supervision(directory) as kept:
        supervisor = kept.open()
        supervisor.start([shell(f"head -c {OUTPUT_BYTES} /dev/zero", key=key) for key in range(1, count + 1)])
        exits(supervisor, count)


def test_a_record_of_a_later_version_is_kept_aside(tmp_path: Path) -> None:
    spooled(tmp_path, count=2)
    rewrite(tmp_path, 1, lambda record: b"\xff" + record[1:])

    with supervision(tmp_path) as kept:
        supervisor = kept.open()
        assert (held(supervisor), supervisor.damaged, supervisor.torn) == ([2], 1, 0)
        supervisor.stop()
        supervisor.hang_up()
        ends(supervisor.pid)
    (record,) = aside(tmp_path)
    assert record[:1] == b"\xff"


def test_what_is_damaged_or_cut_off_is_counted_and_the_rest_is_there(tmp_path: Path) -> None:
    spooled(tmp_path, count=3)
    (segment,) = segments(tmp_path)
    content = segment.read_bytes()
    segment.write_bytes(content.replace(bytes(8), b"rotten!!", 1))
    cut_end(segment, 10)

    with supervision(tmp_path) as kept:
        supervisor = kept.open()
        assert len(supervisor.held) == 1
        assert (supervisor.damaged, supervisor.torn) == (1, 1)
        assert exits(supervisor, 1)[0].stdout == bytes(OUTPUT_BYTES)


def test_an_end_that_the_disk_has_lost_is_told_as_gone(tmp_path: Path) -> None:
    spooled(tmp_path, count=2)

    with supervision(tmp_path) as first, supervision(tmp_path) as second:
        supervisor = first.open()
        exits(supervisor, 2)
        supervisor.hang_up()
        (segment,) = segments(tmp_path)
        segment.write_bytes(b"")

        again = second.open()

        gone: list[Report] = []
        while len(gone) < 2:
            gone += taken(again)
        assert {report.key for report in gone if isinstance(report, Gone)} == {1, 2}
