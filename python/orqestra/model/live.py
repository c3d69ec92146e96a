"""Live output: a copy of what a command writes, for those who follow. It may be lost, its place tells."""

from dataclasses import dataclass

from orqestra.model.limits import OUTPUT_HEAD_BYTES, OUTPUT_TAIL_BYTES


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveChunk:
    """A piece of one stream of an attempt, with its place in what the command wrote.

    `total` is how much of the stream was known when it was sent, 0 if that was not told.
    """

    job_id: int
    fence: int
    stream: int
    offset: int
    total: int
    data: bytes

    def follows(self, position: int) -> bool:
        """Whether it comes next for one who has everything before `position`.

        So it does behind a gap, too, if nothing in the gap is kept: then that will never be had.
        """
        if self.offset <= position:
            return True
        return position >= OUTPUT_HEAD_BYTES and self.offset <= self.total - OUTPUT_TAIL_BYTES
