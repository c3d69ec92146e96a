"""What is kept until it is acknowledged, and in which order it is offered."""

from orqestra.model.limits import BATCH_BYTES, BATCH_JOBS, OUTPUT_CHUNK_BYTES
from orqestra.model.report import AttemptRef
from orqestra.v1.jobs_pb2 import STREAM_STDOUT
from orqestra.v1.worker_pb2 import Result, StoreOutput
from orqestra.worker.outcome import Finished, Piece
from orqestra.worker.outgoing import message_of
from orqestra.worker.results import OUTPUT_WINDOW_BYTES, Unacknowledged
from tests.support.on_wire import results_in


def ref(job_id: int) -> AttemptRef:
    return AttemptRef(job_id, 1, 1)


def add(results: Unacknowledged, job_id: int, *, chunks: int = 0, inline: bytes = b"") -> None:
    ahead = tuple(
        Piece(stream=STREAM_STDOUT, offset=number * OUTPUT_CHUNK_BYTES, data=bytes(OUTPUT_CHUNK_BYTES))
        for number in range(chunks)
    )
    result = Result(attempt=message_of(ref(job_id)), stdout=inline)
    results.add(ref(job_id), Finished(result=result.SerializeToString(), ahead=ahead))


def taken(results: Unacknowledged) -> list[int]:
    return [result.attempt.job_id for result in results_in(results.take_results())]


def take_all_output(results: Unacknowledged) -> list[StoreOutput]:
    output = []
    while (piece := results.take_output()) is not None:
        output.append(piece)
    return output


def test_a_result_is_offered_once_and_kept_until_it_is_acknowledged() -> None:
    results = Unacknowledged()
    add(results, 1)
    add(results, 2)

    assert taken(results) == [1, 2]
    assert taken(results) == []
    assert list(results) == [ref(1), ref(2)]
    assert results.remove(ref(1))
    assert not results.remove(ref(1))
    assert list(results) == [ref(2)]


def test_a_new_stream_is_offered_all_that_was_not_acknowledged() -> None:
    results = Unacknowledged()
    for job_id in (1, 2, 3):
        add(results, job_id)
    taken(results)
    results.remove(ref(2))

    results.offer_again()

    assert taken(results) == [1, 3]


def test_a_message_holds_at_most_a_batch() -> None:
    results = Unacknowledged()
    for job_id in range(BATCH_JOBS + 1):
        add(results, job_id)

    assert (len(taken(results)), len(taken(results))) == (BATCH_JOBS, 1)


def test_a_message_holds_at_most_so_many_bytes_but_at_least_one_result() -> None:
    results = Unacknowledged()
    add(results, 1, inline=bytes(BATCH_BYTES + 1))
    for job_id in (2, 3, 4):
        add(results, job_id, inline=bytes(BATCH_BYTES // 3))

    assert [taken(results), taken(results), taken(results)] == [[1], [2, 3], [4]]


def test_a_result_waits_for_its_own_output_only() -> None:
    results = Unacknowledged()
    add(results, 1, chunks=2)
    add(results, 2)
    assert taken(results) == [2]
    first, second = take_all_output(results)

    results.stored(ref(1), second.stream, second.offset)
    results.stored(ref(1), second.stream, second.offset)
    assert taken(results) == []
    results.stored(ref(1), first.stream, first.offset)

    assert taken(results) == [1]


def test_what_was_stored_is_not_sent_again_on_a_new_stream() -> None:
    results = Unacknowledged()
    add(results, 1, chunks=3)
    first, _, _ = take_all_output(results)
    results.stored(ref(1), first.stream, first.offset)

    results.offer_again()

    assert [piece.offset for piece in take_all_output(results)] == [OUTPUT_CHUNK_BYTES, 2 * OUTPUT_CHUNK_BYTES]
    assert taken(results) == []


def test_only_so_much_output_is_on_its_way() -> None:
    results = Unacknowledged()
    chunks = OUTPUT_WINDOW_BYTES // OUTPUT_CHUNK_BYTES
    add(results, 1, chunks=chunks)
    add(results, 2, chunks=chunks)

    assert len(take_all_output(results)) == chunks
    results.stored(ref(1), STREAM_STDOUT, 0)
    assert [piece.attempt.job_id for piece in take_all_output(results)] == [2]
    results.remove(ref(1))
    assert len(take_all_output(results)) == chunks - 1
