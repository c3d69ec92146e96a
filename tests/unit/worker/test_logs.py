"""What waits of live output: bounded, in turns, within what was granted."""

from orqestra.model.report import AttemptRef
from orqestra.v1.jobs_pb2 import STREAM_STDERR, STREAM_STDOUT
from orqestra.v1.worker_pb2 import LiveOutput, WorkerMessage
from orqestra.worker.logs import STREAM_BYTES, Logs
from orqestra.worker.outgoing import Outgoing
from orqestra.worker.results import Unacknowledged

PIECE = 64 * 1024
PLENTY = 1 << 40


def logs() -> Logs:
    made = Logs(Outgoing(Unacknowledged()))
    made.has_lane = True
    return made


def piece(offset: int, data: bytes = b"x", *, job_id: int = 1, stream: int = STREAM_STDOUT) -> LiveOutput:
    return LiveOutput(job_id=job_id, fence=1, stream=stream, offset=offset, data=data)  # type: ignore[arg-type]  # an enum of protobuf is an int


def taken(waiting: Logs, credit: int = PLENTY) -> list[tuple[int, int, int]]:
    found = []
    while (output := waiting.next(credit)) is not None:
        found.append((output.job_id, int(output.stream), output.offset))
    return found


def test_a_stream_keeps_its_newest() -> None:
    waiting = logs()
    pieces = STREAM_BYTES // PIECE + 2
    for number in range(pieces):
        waiting.live(piece(number * PIECE, bytes(PIECE)))

    assert [offset for _, _, offset in taken(waiting)] == [number * PIECE for number in range(2, pieces)]


def test_a_flood_takes_nothing_from_others() -> None:
    waiting = logs()
    waiting.live(piece(0, b"a line", job_id=2))
    waiting.live(piece(0, b"an error", stream=STREAM_STDERR))
    for number in range(100):
        waiting.live(piece(number * PIECE, bytes(PIECE)))

    first = [waiting.next(PLENTY) for _ in range(3)]

    assert [each.data[:2] for each in first if each is not None] == [b"a ", b"an", b"\0\0"]


def test_streams_take_turns() -> None:
    waiting = logs()
    for offset in (0, 1):
        waiting.live(piece(offset))
        waiting.live(piece(offset, job_id=2))

    assert [(job_id, offset) for job_id, _, offset in taken(waiting)] == [(1, 0), (2, 0), (1, 1), (2, 1)]


def test_nothing_is_sent_beyond_what_was_granted() -> None:
    waiting = logs()
    waiting.live(piece(0, b"12345"))

    assert waiting.next(4) is None
    assert waiting.next(5) is not None


def test_a_piece_tells_what_is_known_of_the_whole() -> None:
    waiting = logs()
    waiting.live(piece(0, b"head"))
    waiting.live(piece(1000, b"tail"))

    first = waiting.next(PLENTY)

    assert first is not None
    assert (first.offset, first.total) == (0, 1004)


def test_what_is_not_followed_any_more_is_dropped() -> None:
    waiting = logs()
    waiting.follow(AttemptRef(1, 1, 9))
    waiting.live(piece(0))
    waiting.live(piece(0, job_id=2))

    waiting.unfollow(AttemptRef(1, 1, 9))

    assert not waiting.followed
    assert taken(waiting) == [(2, STREAM_STDOUT, 0)]


def test_without_a_lane_it_goes_with_the_rest() -> None:
    outgoing = Outgoing(Unacknowledged())
    waiting = Logs(outgoing)

    waiting.live(piece(3))

    message = outgoing.next()
    assert message is not None
    assert WorkerMessage.FromString(message).live_output.offset == 3
    assert waiting.next(PLENTY) is None
