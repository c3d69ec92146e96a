"""Results that the server has not acknowledged, and the output that is stored before them.

Everything that ended is here from its end to its acknowledgement, across all streams. `spool` stands
behind it.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from orqestra.model.limits import BATCH_BYTES, BATCH_JOBS
from orqestra.model.report import AttemptRef
from orqestra.v1.jobs_pb2 import Stream
from orqestra.v1.worker_pb2 import Result, StoreOutput
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
        self._results: dict[AttemptRef, Result] = {}
        self._ready: dict[AttemptRef, Result] = {}
        self._transfers: dict[AttemptRef, _Transfer] = {}
        self._outstanding_bytes = 0

    def __len__(self) -> int:
        return len(self._results)

    def __contains__(self, attempt: AttemptRef) -> bool:
        return attempt in self._results

    def __iter__(self) -> Iterator[AttemptRef]:
        return iter(self._results)

    def add(self, attempt: AttemptRef, finished: Finished) -> None:
        """Keep the end of an attempt until it is acknowledged, and offer it, its output first."""
        self._results[attempt] = finished.result
        if finished.ahead:
            unsent = {(piece.stream, piece.offset): piece for piece in finished.ahead}
            self._transfers[attempt] = _Transfer(unsent=unsent)
        else:
            self._ready[attempt] = finished.result

    def take_results(self) -> list[Result]:
        """Return the results to be sent in one message: all that are ready, up to a batch."""
        batch: list[Result] = []
        size = 0
        for result in self._ready.values():
            size += result.ByteSize()
            if batch and (size > BATCH_BYTES or len(batch) == BATCH_JOBS):
                break
            batch.append(result)
        for attempt in list(itertools.islice(self._ready, len(batch))):
            del self._ready[attempt]
        return batch

    def take_output(self) -> StoreOutput | None:
        """Return the next piece of output to be sent; None if there is none or too much is on its way."""
        if self._outstanding_bytes >= OUTPUT_WINDOW_BYTES:
            return None
        for attempt, transfer in self._transfers.items():
            if transfer.unsent:
                place, piece = next(iter(transfer.unsent.items()))
                transfer.sent[place] = transfer.unsent.pop(place)
                self._outstanding_bytes += len(piece.data)
                return store_output(self._results[attempt], piece)
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
            self._ready[attempt] = self._results[attempt]

    def remove(self, attempt: AttemptRef) -> bool:
        """Forget an attempt: it is acknowledged, or nobody wants it. Return whether it was here."""
        self._ready.pop(attempt, None)
        transfer = self._transfers.pop(attempt, None)
        if transfer is not None:
            self._outstanding_bytes -= sum(len(piece.data) for piece in transfer.sent.values())
        return self._results.pop(attempt, None) is not None

    def offer_again(self) -> None:
        """Begin a new stream: whatever was sent on the old one and not acknowledged is sent again."""
        for transfer in self._transfers.values():
            transfer.restart()
        self._outstanding_bytes = 0
        self._ready = {attempt: result for attempt, result in self._results.items() if attempt not in self._transfers}


def store_output(result: Result, piece: Piece) -> StoreOutput:
    """Return a piece of the output of a result as it is sent."""
    return StoreOutput(attempt=result.attempt, stream=piece.stream, offset=piece.offset, data=piece.data)
