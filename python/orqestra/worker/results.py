"""Results that the server has not acknowledged, and the output that is stored before them.

Everything that ended is here from its end to its acknowledgement, across all streams. `spool` stands
behind it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from orqestra._dispatch import Assigned, Owed
from orqestra.model.limits import BATCH_BYTES, BATCH_JOBS
from orqestra.model.report import AttemptRef
from orqestra.v1.jobs_pb2 import Stream
from orqestra.v1.worker_pb2 import AttemptRef as Ref
from orqestra.v1.worker_pb2 import StoreOutput
from orqestra.worker.outcome import Finished, Piece

# How much output may be on its way: a few hundred milliseconds of a good network.
OUTPUT_WINDOW_BYTES: Final = BATCH_BYTES


@dataclass(slots=True)
class _Transfer:
    """The output of one attempt: what has to be sent still, and what was sent and not acknowledged."""

    unsent: dict[tuple[Stream, int], Piece]
    sent: dict[tuple[Stream, int], Piece] = field(default_factory=dict)

    def restart(self) -> None:
        self.unsent = self.sent | self.unsent
        self.sent = {}


class Unacknowledged:
    """The results that the worker still owes, in the order in which the commands ended.

    A result is ready once all its output is stored; it never waits for another's. What was taken stays until
    it is acknowledged, or is offered again by `offer_again`.
    """

    def __init__(self) -> None:
        self._owed = Owed()
        self._transfers: dict[AttemptRef, _Transfer] = {}
        self._outstanding_bytes = 0

    def __len__(self) -> int:
        return len(self._owed)

    def __contains__(self, attempt: AttemptRef) -> bool:
        return attempt.named in self._owed

    def __iter__(self) -> Iterator[AttemptRef]:
        return (AttemptRef(*attempt) for attempt in self._owed.attempts())

    def add(self, attempt: AttemptRef, finished: Finished) -> None:
        """Keep the end of an attempt until it is acknowledged, and offer it, its output first."""
        self._owed.add(attempt.named, finished.result, held_back=bool(finished.ahead))
        self._forget_transfer(attempt)
        if finished.ahead:
            unsent = {(piece.stream, piece.offset): piece for piece in finished.ahead}
            self._transfers[attempt] = _Transfer(unsent=unsent)

    def add_noops(self, assigned: Assigned, now_us: int) -> None:
        """Keep the ends of jobs that have nothing to do, as they were assigned, and offer them."""
        self._owed.add_noops(assigned, now_us)

    def take_results(self) -> bytes | None:
        """Return the results to be sent in one message: all that are ready, up to a batch; None: there are none."""
        return self._owed.take(BATCH_JOBS, BATCH_BYTES)

    def take_output(self) -> StoreOutput | None:
        """Return the next piece of output to be sent; None if there is none or too much is on its way."""
        if self._outstanding_bytes >= OUTPUT_WINDOW_BYTES:
            return None
        for attempt, transfer in self._transfers.items():
            if transfer.unsent:
                place, piece = next(iter(transfer.unsent.items()))
                transfer.sent[place] = transfer.unsent.pop(place)
                self._outstanding_bytes += len(piece.data)
                return store_output(attempt, piece)
        return None

    def stored(self, attempt: AttemptRef, stream: Stream, offset: int) -> None:
        """Note that a piece is stored; the last one makes the result ready."""
        transfer = self._transfers.get(attempt)
        piece = transfer.sent.pop((stream, offset), None) if transfer else None
        if transfer is None or piece is None:
            return
        self._outstanding_bytes -= len(piece.data)
        if not transfer.sent and not transfer.unsent:
            del self._transfers[attempt]
            self._owed.release(attempt.named)

    def acknowledge(self, message: bytes) -> list[tuple[AttemptRef, int, bool]] | None:
        """Forget what a message with ResultAcks answers; None: it is another one.

        Returns what others have to know of: the attempt, its verdict and whether it was here. That is all but
        the expected ends of jobs that had nothing to do.
        """
        answered = self._owed.acknowledge(message)
        if answered is None:
            return None
        told = [(AttemptRef(*attempt), verdict, was_owed) for attempt, verdict, was_owed in answered]
        for attempt, _, _ in told:
            self._forget_transfer(attempt)
        return told

    def remove(self, attempt: AttemptRef) -> bool:
        """Forget an attempt: nobody wants it. Return whether it was here."""
        self._forget_transfer(attempt)
        return self._owed.remove(attempt.named)

    def offer_again(self) -> None:
        """Begin a new stream: whatever was sent on the old one and not acknowledged is sent again."""
        for transfer in self._transfers.values():
            transfer.restart()
        self._outstanding_bytes = 0
        self._owed.offer_again()

    def _forget_transfer(self, attempt: AttemptRef) -> None:
        transfer = self._transfers.pop(attempt, None)
        if transfer is not None:
            self._outstanding_bytes -= sum(len(piece.data) for piece in transfer.sent.values())


def store_output(attempt: AttemptRef, piece: Piece) -> StoreOutput:
    """Return a piece of the output of an attempt as it is sent."""
    ref = Ref(job_id=attempt.job_id, fence=attempt.fence, token=attempt.token)
    return StoreOutput(attempt=ref, stream=piece.stream, offset=piece.offset, data=piece.data)
