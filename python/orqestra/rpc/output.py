"""GetOutput: what is stored, then what comes in live, then what is stored at the end."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final, cast

from orqestra.clock import Clock
from orqestra.engine.live import Follower, Live
from orqestra.engine.watch import LOOK_SECONDS, Watch
from orqestra.model import limits
from orqestra.model.errors import InvalidInput, NotFound
from orqestra.model.lifecycle import TERMINAL, State
from orqestra.model.live import LiveChunk
from orqestra.model.report import AttemptRef
from orqestra.rpc import reading
from orqestra.store.database import Database, Row
from orqestra.v1 import jobs_pb2

STREAMS: Final = (jobs_pb2.STREAM_STDOUT, jobs_pb2.STREAM_STDERR)
COLUMNS: Final = {jobs_pb2.STREAM_STDOUT: "stdout", jobs_pb2.STREAM_STDERR: "stderr"}
PIECES: Final = 8
LIVE_LOOK_SECONDS: Final = 0.2
# What a running attempt has written comes within this: the worker may have to open its lane first.
FIRST_SECONDS: Final = 0.5


class OutputReader:
    """Reads the output of a job for one caller, and knows how far it has got."""

    def __init__(self, clock: Clock, database: Database, live: Live, watch: Watch) -> None:
        self._clock = clock
        self._database = database
        self._live = live
        self._watch = watch
        self._fence = 0
        self._sent: dict[int, int] = {}
        self._had_of: int | None = None
        self._had: dict[int, int] = {}

    async def read(self, request: jobs_pb2.GetOutputRequest) -> AsyncIterator[jobs_pb2.OutputChunk]:
        """Yield chunks: of one attempt, or with `follow` from that one (else from now) until the job ends.

        Raises:
            NotFound: there is no such job or attempt.
            InvalidInput: an offset is negative.
        """
        self._had_of = request.fence if request.HasField("fence") else None
        self._had = _offsets(request)
        if not request.follow:
            async for chunk in self._read_once(await self._find(request)):
                yield chunk
            return
        with self._watch.watching(request.id) as changed:
            first = request.fence if request.HasField("fence") else None
            while True:
                changed.clear()
                row = await reading.find_job(self._database, request.id)
                first = max(row["fence"] if first is None else first, self._fence)
                async for chunk in self._read_attempts(row["id"], first):
                    yield chunk
                if row["state"] == State.RUNNING and row["fence"] >= self._fence:
                    async for chunk in self._follow(row, changed):
                        yield chunk
                elif row["state"] in TERMINAL:
                    async for chunk in self._read_ended(row):
                        yield chunk
                    return
                else:
                    await self._clock.wait(changed, LOOK_SECONDS)

    async def _read_once(self, row: Row) -> AsyncIterator[jobs_pb2.OutputChunk]:
        """Yield what there is now: of a running attempt what its worker has of it."""
        running = "state" in row.keys() and row["state"] == State.RUNNING  # noqa: SIM118  `in` of a Record asks its values
        chunks = self._follow(row, asyncio.Event(), until_quiet=True) if running else self._read_ended(row)
        async for chunk in chunks:
            yield chunk

    async def _find(self, request: jobs_pb2.GetOutputRequest) -> Row:
        row = await reading.find_job(self._database, request.id)
        if not request.HasField("fence") or request.fence == row["fence"]:
            return row
        found = await self._attempt(request.id, request.fence)
        if found is None:
            raise NotFound("attempt", f"{request.fence} of job {request.id}")
        return found

    async def _attempt(self, job_id: int, fence: int) -> Row | None:
        for row in await self._database.fetch("get_attempts", id=job_id, at_most=limits.ATTEMPTS_SHOWN):
            if row["fence"] == fence:
                return row
        return None

    async def _follow(
        self, row: Row, changed: asyncio.Event, *, until_quiet: bool = False
    ) -> AsyncIterator[jobs_pb2.OutputChunk]:
        """Yield live chunks until the attempt is over (or moves to another stream), or until none comes."""
        self._begin(row["fence"])
        attempt = AttemptRef(row["id"], row["fence"], row["token"])
        with self._live.following(row["session_id"], attempt, self._sent) as follower:
            seconds = FIRST_SECONDS if until_quiet else LIVE_LOOK_SECONDS
            while True:
                chunk = await self._next(follower, seconds)
                for piece in self._live_piece(follower, chunk):
                    seconds = LIVE_LOOK_SECONDS
                    yield piece
                if chunk is None and until_quiet:
                    break
                self._live.catch_up(follower)
                if chunk is None or changed.is_set():
                    # Told of a change, or for a while of nothing: go on as long as this attempt does, here.
                    changed.clear()
                    if not await self._still(row):
                        break
            while (chunk := follower.take()) is not None:
                for piece in self._live_piece(follower, chunk):
                    yield piece

    async def _next(self, follower: Follower, seconds: float) -> LiveChunk | None:
        """Return the next chunk, None if none comes for so long."""
        if follower.empty:
            await self._clock.wait(follower.arrival(), seconds)
        return follower.take()

    async def _still(self, row: Row) -> bool:
        now = await reading.find_job(self._database, row["id"])
        return bool(
            now["state"] == State.RUNNING and now["fence"] == row["fence"] and now["session_id"] == row["session_id"]
        )

    async def _read_attempts(self, job_id: int, first: int) -> AsyncIterator[jobs_pb2.OutputChunk]:
        """What was not seen live of the attempts that have ended, from the fence `first` on."""
        for row in await self._database.fetch("get_attempts", id=job_id, at_most=limits.ATTEMPTS_SHOWN):
            if row["fence"] >= first:
                async for chunk in self._read_ended(row):
                    yield chunk

    async def _read_ended(self, row: Row) -> AsyncIterator[jobs_pb2.OutputChunk]:
        self._begin(row["fence"])
        job_id = row["job_id"] if "job_id" in row else row["id"]
        for stream in STREAMS:
            inline = row[COLUMNS[stream]]
            if inline:
                for piece in self._piece(stream, 0, inline):
                    yield piece
            elif (row[f"{COLUMNS[stream]}_bytes"] or 0) > 0:
                async for chunk in self._read_stored(job_id, stream):
                    yield chunk

    async def _read_stored(self, job_id: int, stream: jobs_pb2.Stream) -> AsyncIterator[jobs_pb2.OutputChunk]:
        # A piece that reaches beyond what the caller has begins less than its longest length before that.
        at = max(0, self._sent[stream] - limits.OUTPUT_CHUNK_BYTES + 1)
        while True:
            rows = await self._database.fetch(
                "get_output", id=job_id, fence=self._fence, stream=stream, from_offset=at, pieces=PIECES
            )
            for row in rows:
                for piece in self._piece(stream, row["byte_offset"], row["bytes"]):
                    yield piece
            if len(rows) < PIECES:
                return
            at = rows[-1]["byte_offset"] + 1

    def _begin(self, fence: int) -> None:
        if fence != self._fence:
            self._fence = fence
            # What the caller has is of one attempt: the one it names, else the first.
            had = self._had if self._had_of in (None, fence) else {}
            self._had = {}
            self._sent = dict.fromkeys(STREAMS, 0) | had

    def _live_piece(self, follower: Follower, chunk: LiveChunk | None) -> list[jobs_pb2.OutputChunk]:
        """Return what is new in a live chunk; nothing after a gap that can still be filled."""
        if chunk is None or chunk.fence != self._fence:
            return []
        stream = cast("jobs_pb2.Stream", chunk.stream)
        if not chunk.follows(self._sent[stream]):
            # A worker that tells no total would send all again each time, on the stream of its work.
            follower.behind = chunk.total > 0
            return []
        return self._piece(stream, chunk.offset, chunk.data)

    def _piece(self, stream: jobs_pb2.Stream, offset: int, data: bytes) -> list[jobs_pb2.OutputChunk]:
        """Return what of these bytes the caller has not got yet, in chunks."""
        skip = max(0, self._sent[stream] - offset)
        chunks = []
        for at in range(skip, len(data), limits.OUTPUT_CHUNK_BYTES):
            part = data[at : at + limits.OUTPUT_CHUNK_BYTES]
            chunks.append(jobs_pb2.OutputChunk(fence=self._fence, stream=stream, offset=offset + at, data=part))
        self._sent[stream] = max(self._sent[stream], offset + len(data))
        return chunks


def _offsets(request: jobs_pb2.GetOutputRequest) -> dict[int, int]:
    offsets: dict[int, int] = {}
    for stream, offset in zip(STREAMS, (request.stdout_offset, request.stderr_offset), strict=True):
        if offset < 0:
            raise InvalidInput(f"{COLUMNS[stream]}_offset", f"{offset}; must not be negative")
        offsets[stream] = offset
    return offsets
