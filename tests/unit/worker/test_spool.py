"""How results are written, read back, and released."""

import select
from pathlib import Path

import pytest
from google.protobuf.message import DecodeError

from orqestra._dispatch import Spool
from orqestra.model.report import AttemptRef
from orqestra.v1.jobs_pb2 import STREAM_STDERR, STREAM_STDOUT
from orqestra.v1.worker_pb2 import Result
from orqestra.worker.outcome import Finished, Piece
from orqestra.worker.outgoing import message_of
from orqestra.worker.results import Unacknowledged
from orqestra.worker.spool import SILENCE_SECONDS, VERSION, ResultSpool, decode, encode
from tests.support.clock import ManualClock

PATIENCE_SECONDS = 10.0
REF = AttemptRef(1, 2, -3)
FINISHED = Finished(
    result=Result(attempt=message_of(REF), exit_code=0, stdout=b"\xff\0", stderr_stored=True),
    ahead=(
        Piece(stream=STREAM_STDERR, offset=0, data=b"head"),
        Piece(stream=STREAM_STDERR, offset=1 << 40, data=b""),
        Piece(stream=STREAM_STDOUT, offset=4, data=bytes(range(256))),
    ),
)


def read(results: ResultSpool, spool: Spool) -> bool:
    """Read once there is something to be read."""
    readable, _, _ = select.select([spool], [], [], PATIENCE_SECONDS)
    assert readable
    return results.read()


@pytest.mark.parametrize("finished", [FINISHED, Finished(result=Result()), Finished(result=FINISHED.result)])
def test_a_record_says_what_was_written(finished: Finished) -> None:
    assert decode(encode(finished)) == finished


def test_a_record_that_is_none_is_refused() -> None:
    record = encode(FINISHED)
    whole = len(encode(Finished(result=FINISHED.result)))

    for cut in range(whole):
        with pytest.raises(ValueError, match=r"version|cut off|no message"):
            decode(record[:cut])
    with pytest.raises(ValueError, match="version 02"):
        decode(b"\x02" + record[1:])
    with pytest.raises(DecodeError):
        decode(VERSION + b"\x01\0\0\0\xff")


def test_nothing_is_offered_before_it_is_durable(tmp_path: Path) -> None:
    spool, results = Spool(tmp_path / "spool"), Unacknowledged()
    durable = ResultSpool(spool, results)
    durable.add(REF, Finished(result=FINISHED.result))
    assert results.take_results() == []

    durable.flush()
    assert results.take_results() == []
    changed = read(durable, spool)

    assert not changed
    assert results.take_results() == [FINISHED.result]
    spool.close()


def test_what_is_removed_before_it_is_durable_is_gone(tmp_path: Path) -> None:
    spool, results = Spool(tmp_path / "spool"), Unacknowledged()
    durable = ResultSpool(spool, results)
    durable.add(REF, FINISHED)
    durable.flush()

    assert durable.remove(REF)
    assert not durable.remove(REF)
    durable.flush()
    spool.close()
    durable.read()

    assert (results.take_results(), results.take_output()) == ([], None)
    assert Spool(tmp_path / "spool").recovered() == []


def test_a_record_of_a_later_version_is_kept_aside(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.append([(1, b"\x02later"), (2, encode(FINISHED))])
    spool.close()

    spool, results = Spool(tmp_path / "spool"), Unacknowledged()
    ResultSpool(spool, results)
    spool.close()

    assert list(results) == [REF]
    assert [file.read_bytes() for file in (tmp_path / "spool" / "aside").iterdir()] == [b"\x02later"]
    assert [key for key, _ in Spool(tmp_path / "spool").recovered()] == [2]


def test_without_a_disk_results_go_on_from_memory_and_its_return_is_noticed(tmp_path: Path) -> None:
    # given a spool whose directory is away when it begins its first segment
    spool, results = Spool(tmp_path / "spool"), Unacknowledged()
    durable = ResultSpool(spool, results)
    (tmp_path / "spool").rename(tmp_path / "away")

    # when something has to be written
    durable.add(REF, Finished(result=FINISHED.result))
    durable.flush()
    changed = read(durable, spool)
    other = AttemptRef(4, 5, 6)
    durable.add(other, Finished(result=Result(attempt=message_of(other))))
    durable.flush()

    # then it can be sent all the same, and what comes after it too
    assert changed
    assert durable.health == "spool: No such file or directory"
    assert [result.attempt.job_id for result in results.take_results()] == [1, 4]

    # when the disk is back, then all is well, and what was not acknowledged meanwhile is durable
    durable.remove(REF)
    durable.flush()
    (tmp_path / "away").rename(tmp_path / "spool")
    assert read(durable, spool)
    assert durable.health == ""
    spool.close()
    assert [decode(record).result.attempt.job_id for _, record in Spool(tmp_path / "spool").recovered()] == [4]


async def test_a_disk_that_does_not_answer_is_trouble_until_a_sync_is_told(tmp_path: Path) -> None:
    # given a result that the disk has been handed, with no answer yet
    clock = ManualClock()
    spool, results = Spool(tmp_path / "spool"), Unacknowledged()
    durable = ResultSpool(spool, results, monotonic=clock.monotonic)
    durable.add(REF, Finished(result=FINISHED.result))
    await clock.advance(SILENCE_SECONDS - 0.1)
    assert not durable.read()
    assert results.take_results() == []

    # when it has taken too long, then it is sent from memory, and what comes after it too
    await clock.advance(0.2)
    assert durable.read()
    other = AttemptRef(4, 5, 6)
    durable.add(other, Finished(result=Result(attempt=message_of(other))))
    assert durable.health == "spool: the disk does not answer"
    assert [result.attempt.job_id for result in results.take_results()] == [1, 4]
    assert not durable.read()

    # when all is acknowledged before the disk takes it, then its answer is noticed nevertheless
    durable.remove(REF, keep_aside=True)
    durable.remove(other)
    durable.flush()
    assert read(durable, spool)
    assert durable.health == ""
    durable.flush()
    spool.close()
    assert Spool(tmp_path / "spool").recovered() == []
    assert [decode(file.read_bytes()).result for file in (tmp_path / "spool" / "aside").iterdir()] == [FINISHED.result]
