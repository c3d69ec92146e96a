"""The spool in processes of their own: killed while they write, and on a disk that is full."""

import select
import subprocess
import sys
from pathlib import Path

import pytest

from orqestra._dispatch import Spool

KILLED_AFTER = (1, 100, 2000)
PATIENCE_SECONDS = 20.0
# Prints each key once it was told to be durable, and goes on for ever.
WRITER = """
import itertools, select, sys
from orqestra._dispatch import Spool

spool = Spool(sys.argv[1])
for start in itertools.count(1, 10):
    spool.append([(key, b"%d;" % key * 100) for key in range(start, start + 10)])
    select.select([spool], [], [])
    keys, trouble = spool.take()
    assert trouble is None
    print(*keys, sep="\\n", flush=True)
"""
# No file may grow beyond 4096 bytes, until it is told that it may.
LIMITED = """
import errno, resource, select, sys
from orqestra._dispatch import Spool

spool = Spool(sys.argv[1])

def told():
    select.select([spool], [], [])
    return spool.take()

_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
spool.append([(1, bytes(1000))])
assert told() == ([1], None)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, most))
spool.append([(2, bytes(5000)), (3, bytes(100))])
assert told() == ([], errno.EFBIG)
if sys.argv[2] == "acknowledged meanwhile":
    spool.delete([1, 2, 3])
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
print(told())
spool.close()
"""
# Fills segments until the oldest could go if its one record were moved, with no descriptor to read it.
WITHOUT_DESCRIPTORS = """
import os, resource, select, sys
from orqestra._dispatch import Spool

spool = Spool(sys.argv[1], segment_bytes=4096)

def write(key, record):
    spool.append([(key, record)])
    select.select([spool], [], [])
    assert spool.take() == ([key], None)

write(1, b"keep" * 50)
key = 2
while len([name for name in os.listdir(sys.argv[1]) if name.endswith(".spool")]) < 3:
    write(key, bytes(200))
    spool.delete([key])
    key += 1
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, most))
for key in range(key, key + 6):
    write(key, bytes(300))
    spool.delete([key])
spool.set_aside(1)
spool.close()
"""


def content(key: int) -> bytes:
    return b"%d;" % key * 100


def run(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        timeout=PATIENCE_SECONDS,
        check=True,
        text=True,
    )
    return done.stdout.strip()


@pytest.mark.parametrize("count", KILLED_AFTER)
def test_what_a_killed_process_was_told_to_be_durable_is_there(tmp_path: Path, count: int) -> None:
    directory = str(tmp_path / "spool")
    told: set[int] = set()
    with subprocess.Popen([sys.executable, "-c", WRITER, directory], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while len(told) < count:
            told.add(int(process.stdout.readline()))
        process.kill()
        rest = process.stdout.read()
    # The last line may be cut off.
    told.update(int(line) for line in rest.split(b"\n")[:-1])

    spool = Spool(directory)
    records = dict(spool.recovered())

    assert told <= records.keys()
    assert all(record == content(key) for key, record in records.items())
    # One group more may have been under way.
    assert len(records) <= len(told) + 20
    assert spool.recovered() == []
    spool.delete(list(records))
    spool.close()
    assert Spool(directory).recovered() == []


@pytest.mark.parametrize(
    ("meanwhile", "told", "left"),
    [("nothing", "([2, 3], None)", [1, 2, 3]), ("acknowledged meanwhile", "([], None)", [])],
)
def test_a_full_disk_is_told_and_the_end_of_it(tmp_path: Path, meanwhile: str, told: str, left: list[int]) -> None:
    directory = str(tmp_path / "spool")

    assert run(LIMITED, directory, meanwhile) == told

    spool = Spool(directory)
    assert [key for key, _ in spool.recovered()] == left
    assert (spool.torn, spool.damaged) == (0, 0)


def test_a_record_that_cannot_be_read_now_is_not_forgotten(tmp_path: Path) -> None:
    directory = str(tmp_path / "spool")

    run(WITHOUT_DESCRIPTORS, directory)

    # Neither by being moved nor by being set aside.
    assert dict(Spool(directory).recovered())[1] == b"keep" * 50


def test_the_descriptor_is_quiet_when_nothing_is_new(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    assert select.select([spool], [], [], 0)[0] == []

    spool.append([(2**64 - 1, b"")])
    assert select.select([spool], [], [], PATIENCE_SECONDS)[0] == [spool]
    assert spool.take() == ([2**64 - 1], None)

    assert select.select([spool], [], [], 0)[0] == []
    assert spool.take() == ([], None)


def test_a_directory_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(NotADirectoryError):
        Spool(tmp_path / "file" / "spool")
