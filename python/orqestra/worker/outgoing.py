"""What waits to be written to the stream, merged: whatever is waiting when a write returns is one message.

First beats, which never wait behind data, then acknowledgements and answers; then results, output and
live output take turns.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from orqestra.model.limits import MIB
from orqestra.model.report import AttemptRef as Ref
from orqestra.v1.worker_pb2 import (
    AssignAck,
    AssignNack,
    AttemptRef,
    Beat,
    Held,
    LiveOutput,
    WorkerMessage,
)
from orqestra.worker.results import Unacknowledged

# Live output is a copy: beyond this it is dropped rather than kept for a slow stream.
LIVE_BYTES: Final = MIB


class Outgoing:
    """Everything for the server that is not written yet. All but the results belongs to one stream."""

    def __init__(self, results: Unacknowledged) -> None:
        self._results = results
        self._woken = asyncio.Event()
        self._data: deque[Callable[[], bytes | None]] = deque((self._take_results, self._take_output, self._take_live))
        self.restart()

    def restart(self) -> None:
        """Begin a new stream: what only the old one could use is dropped, what it owes is offered again."""
        self._beat: Beat | None = None
        self._ack: AssignAck | None = None
        self._handed_back: dict[str, list[AttemptRef]] = {}
        self._held: Held | None = None
        self._live: deque[LiveOutput] = deque()
        self._live_bytes = 0
        self._results.offer_again()

    def wake(self) -> None:
        """Say that something may be waiting."""
        self._woken.set()

    async def wait(self) -> None:
        """Return after the next wake; call it only when `next` had nothing."""
        self._woken.clear()
        await self._woken.wait()

    def beat(self, beat: Beat) -> None:
        """Send a beat; it takes the place of one that still waits."""
        self._beat = beat
        self.wake()

    def acknowledge(self, number: int) -> None:
        """Acknowledge every Assign up to this number."""
        self._ack = AssignAck(up_to=number)
        self.wake()

    def hand_back(self, attempts: Iterable[Ref], reason: str) -> None:
        """Give back attempts of which nothing ran."""
        if given_back := list(map(message_of, attempts)):
            self._handed_back.setdefault(reason, []).extend(given_back)
            self.wake()

    def answer_held(self, held: Held) -> None:
        """Answer what the worker holds."""
        self._held = held
        self.wake()

    def live(self, output: LiveOutput) -> None:
        """Send live output, or drop it if too much of it waits."""
        if self._live_bytes + len(output.data) <= LIVE_BYTES:
            self._live.append(output)
            self._live_bytes += len(output.data)
            self.wake()

    def next(self) -> bytes | None:
        """Take the next WorkerMessage, encoded; None if nothing waits."""
        control = self._next_control()
        return self._next_data() if control is None else control.SerializeToString()

    def _next_control(self) -> WorkerMessage | None:
        if self._beat is not None:
            beat, self._beat = self._beat, None
            return WorkerMessage(beat=beat)
        if self._ack is not None:
            ack, self._ack = self._ack, None
            return WorkerMessage(assign_ack=ack)
        # Before Held, which no longer lists them.
        if self._handed_back:
            reason, attempts = self._handed_back.popitem()
            return WorkerMessage(assign_nack=AssignNack(attempts=attempts, reason=reason))
        if self._held is not None:
            held, self._held = self._held, None
            return WorkerMessage(held=held)
        return None

    def _next_data(self) -> bytes | None:
        for _ in range(len(self._data)):
            take = self._data[0]
            self._data.rotate(-1)
            if (message := take()) is not None:
                return message
        return None

    def _take_results(self) -> bytes | None:
        return self._results.take_results()

    def _take_output(self) -> bytes | None:
        output = self._results.take_output()
        return WorkerMessage(store_output=output).SerializeToString() if output is not None else None

    def _take_live(self) -> bytes | None:
        if not self._live:
            return None
        live = self._live.popleft()
        self._live_bytes -= len(live.data)
        return WorkerMessage(live_output=live).SerializeToString()


def message_of(attempt: Ref) -> AttemptRef:
    """Return the name of an attempt as it is sent."""
    return AttemptRef(job_id=attempt.job_id, fence=attempt.fence, token=attempt.token)


def attempt_of(message: AttemptRef) -> Ref:
    """Return the name of an attempt as it was received."""
    return Ref(message.job_id, message.fence, message.token)
