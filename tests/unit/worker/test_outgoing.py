"""What is written next, and how what waits is merged."""

import asyncio

from orqestra.model.report import AttemptRef
from orqestra.v1.worker_pb2 import Beat, Held, LiveOutput, WorkerMessage
from orqestra.worker.outcome import Finished
from orqestra.worker.outgoing import LIVE_BYTES, Outgoing
from orqestra.worker.results import Unacknowledged


def ref(job_id: int) -> AttemptRef:
    return AttemptRef(job_id, 1, 1)


def written(outgoing: Outgoing) -> list[WorkerMessage]:
    messages = []
    while (message := outgoing.next()) is not None:
        messages.append(WorkerMessage.FromString(message))
    return messages


def kinds(messages: list[WorkerMessage]) -> list[str | None]:
    return [message.WhichOneof("message") for message in messages]


async def test_beats_go_first_and_answers_before_data() -> None:
    results = Unacknowledged()
    outgoing = Outgoing(results)
    results.add(ref(1), Finished(result=b""))
    outgoing.live(LiveOutput(data=b"x"))
    outgoing.answer_held(Held(seq=1))
    outgoing.hand_back([ref(2)], "draining")
    outgoing.acknowledge(3)
    outgoing.beat(Beat(seq=1))

    assert kinds(written(outgoing)) == ["beat", "assign_ack", "assign_nack", "held", "results", "live_output"]


async def test_what_waits_is_merged() -> None:
    outgoing = Outgoing(Unacknowledged())
    for number in (1, 2, 3):
        outgoing.beat(Beat(seq=number))
        outgoing.acknowledge(number)
        outgoing.hand_back([ref(number)], "draining")

    beat, ack, nack = written(outgoing)

    assert beat.beat.seq == 3
    assert ack.assign_ack.up_to == 3
    assert [each.job_id for each in nack.assign_nack.attempts] == [1, 2, 3]


async def test_results_do_not_starve_live_output() -> None:
    results = Unacknowledged()
    outgoing = Outgoing(results)
    outgoing.live(LiveOutput(data=b"x"))
    seen = []
    for job_id in (1, 2):
        results.add(ref(job_id), Finished(result=b""))
        message = outgoing.next()
        assert message is not None
        seen.append(WorkerMessage.FromString(message))

    assert kinds(seen) == ["results", "live_output"]


async def test_live_output_is_dropped_when_too_much_waits() -> None:
    outgoing = Outgoing(Unacknowledged())
    for offset in range(3):
        outgoing.live(LiveOutput(offset=offset, data=bytes(LIVE_BYTES // 2)))
    assert [message.live_output.offset for message in written(outgoing)] == [0, 1]

    outgoing.live(LiveOutput(offset=3, data=b"x"))

    assert [message.live_output.offset for message in written(outgoing)] == [3]


async def test_a_new_stream_begins_with_results_and_nothing_else() -> None:
    results = Unacknowledged()
    outgoing = Outgoing(results)
    results.add(ref(1), Finished(result=b""))
    written(outgoing)
    outgoing.beat(Beat(seq=9))
    outgoing.acknowledge(9)
    outgoing.hand_back([ref(9)], "draining")
    outgoing.live(LiveOutput(data=b"x"))

    outgoing.restart()

    assert kinds(written(outgoing)) == ["results"]


async def test_a_wake_ends_the_wait() -> None:
    outgoing = Outgoing(Unacknowledged())
    waiting = asyncio.create_task(outgoing.wait())
    await asyncio.sleep(0)
    assert not waiting.done()

    outgoing.beat(Beat(seq=1))

    async with asyncio.timeout(1):
        await waiting
