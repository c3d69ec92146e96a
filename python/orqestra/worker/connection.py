"""A stream whenever there is none: a new channel for each attempt, a pause between two.

The pause is drawn evenly from nothing to 250 ms, 500 ms, then 1 s for ever, so that the workers
of a restarted server do not come all at once. Commands go on meanwhile.
"""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import grpc.aio

from orqestra import __version__
from orqestra.clock import Clock
from orqestra.flow_control import FLOW_CONTROL
from orqestra.log import get_logger
from orqestra.model import limits
from orqestra.v1.worker_pb2 import Hello, LogsHello, Welcome
from orqestra.worker.identity import Identity
from orqestra.worker.jobs import Jobs
from orqestra.worker.logs import Lane
from orqestra.worker.stream import PROTOCOL, WELCOME_SECONDS, Call, Stream, StreamEnd
from orqestra.worker.supervised import Supervision

# Where there are others, one that takes connections and says nothing must not cost a lease.
WELCOME_OF_SEVERAL_SECONDS: Final = 1.5
# Longer than any wait for a welcome, which then decides.
CONNECT_SECONDS: Final = 10.0
PAUSES_SECONDS: Final = (0.25, 0.5, 1.0)
WORK: Final = "/orqestra.v1.WorkerService/Work"

OPTIONS: Final = (
    ("grpc.max_send_message_length", limits.MESSAGE_BYTES),
    ("grpc.max_receive_message_length", limits.MESSAGE_BYTES),
    *FLOW_CONTROL,
    # A lost host is noticed within 15 s. The server allows pings from 5 s on.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # gRPC shares connections, and its pauses after a failure, between channels of the same address.
    # Each attempt here is a new one, and the pauses are ours.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # Despite its name also how long one connect may take.
    ("grpc.min_reconnect_backoff_ms", int(CONNECT_SECONDS * 1000)),
    # The proxy that http_proxy names is for the web.
    ("grpc.enable_http_proxy", 0),
)

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Introduction:
    """What a worker says of itself in every Hello."""

    name: str
    queues: Sequence[str]
    labels: dict[str, str]
    identity: Identity
    supervision: Supervision


class Connection:
    """Keeps a session with one of the servers at `addresses` until `close`.

    They are walked in an order that chance gave to this worker, so that workers spread over them.
    """

    def __init__(self, addresses: Sequence[str], introduction: Introduction, jobs: Jobs, *, clock: Clock) -> None:
        self._addresses = random.sample(addresses, len(addresses))
        self._turn = 0
        self._introduction = introduction
        self._jobs = jobs
        self._clock = clock
        self._closing = asyncio.Event()
        self._stream: Stream | None = None
        self._lane: Lane | None = None
        self._failures = 0
        self._told: str | None = None

    async def run(self) -> None:
        """Open stream after stream; return once closed."""
        while not self._closing.is_set():
            end = await self._serve()
            if self._closing.is_set():
                break
            self._tell(end)
            self._failures = 0 if end.proven else self._failures + 1
            self._turn += 1
            # Each of the others is tried before the pause grows.
            rounds = self._failures // len(self._addresses)
            await self._clock.wait(self._closing, pause_seconds(rounds, end.retry_after_ms))

    def beat_now(self) -> None:
        """Tell the server at once that the slots have changed."""
        if self._stream is not None:
            self._stream.beat_now()

    def renew(self) -> None:
        """End the stream, so that the next Hello tells the server what runs the commands now."""
        if self._stream is not None:
            self._stream.abandon()

    def close(self) -> None:
        """Write what waits, end the stream and open no other; `run` returns."""
        self._closing.set()
        if self._stream is not None:
            self._stream.close()

    @property
    def _address(self) -> str:
        return self._addresses[self._turn % len(self._addresses)]

    async def _serve(self) -> StreamEnd:
        try:
            # All that the old stream brought has been read or dropped by now: what is held is final.
            hello = self._hello()
        except OSError as error:
            return StreamEnd(kind="STATE", reason=f"the number of this session can't be stored: {error}")
        channel = self._open_channel()
        try:
            call: Call = channel.stream_stream(WORK)()
            welcome_seconds = WELCOME_SECONDS if len(self._addresses) == 1 else WELCOME_OF_SEVERAL_SECONDS
            self._stream = Stream(call, self._jobs, self._clock, self._welcomed, welcome_seconds=welcome_seconds)
            return await self._stream.run(hello)
        finally:
            self._jobs.end_session()
            self._stream = None
            await self._close_lane()
            await channel.close()

    def _open_channel(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(self._address, options=OPTIONS)

    def _open_lane(self, welcome: Welcome) -> None:
        hello = LogsHello(session_id=welcome.session_id, key=welcome.logs_key)
        self._lane = Lane(self._open_channel, hello, self._jobs, self._jobs.logs, self._clock)
        self._lane.start()

    async def _close_lane(self) -> None:
        lane, self._lane = self._lane, None
        if lane is not None:
            await lane.stop()

    def _hello(self) -> Hello:
        return Hello(
            protocol=PROTOCOL,
            worker_id=self._introduction.identity.worker_id,
            incarnation=self._introduction.supervision.incarnation,
            number=self._introduction.identity.next_number(),
            name=self._introduction.name,
            slots=self._jobs.offered_slots,
            queues=self._introduction.queues,
            labels=self._introduction.labels,
            held=self._jobs.held(),
            version=__version__,
        )

    def _welcomed(self, welcome: Welcome) -> None:
        self._told = None
        if welcome.logs_key:
            self._open_lane(welcome)
        log.info(
            "worker ready",
            session_id=welcome.session_id,
            server=welcome.server or self._address,
            address=self._address,
            lease_ms=welcome.lease_ms,
            slots=self._jobs.offered_slots,
        )

    def _tell(self, end: StreamEnd) -> None:
        """Log the end of a stream, but not each attempt that fails as the one before."""
        if end.kind != self._told:
            self._told = end.kind
            log.warning(
                "no session with the server, trying again",
                address=self._address,
                setting="ORQESTRA_SERVERS or GRPC_ADDR",
                reason=end.reason,
            )


def pause_seconds(failures: int, retry_after_ms: int = 0) -> float:
    """Return how long to wait after so many attempts in a row that came to nothing."""
    longest = PAUSES_SECONDS[min(failures, len(PAUSES_SECONDS) - 1)]
    # What the server asks for comes first, and is spread as well.
    return retry_after_ms / 1000 + random.uniform(0, longest)  # noqa: S311  jitter needs no cryptography
