"""What there is in the model: rows of Postgres, workers, servers, messages, and the moves between states.

All values are tuples of plain numbers, so that a state is hashed and compared at the speed of C. What has no
influence on what may happen next is left out (output, payloads, delays, lanes, credits, hints: a hint may
be had at any time, which is what a lost, doubled or stale one amounts to).
"""

from enum import IntEnum, StrEnum
from typing import Final, NamedTuple

from orqestra.model.lifecycle import RunState, State


class Invariant(StrEnum):
    """What must hold: the numbers of the invariants that the checker of the chaos runs verifies too."""

    ONE_END = "I1: a job that has ended changes only by an operator's retry"
    KEPT = "I2: what was acknowledged to a worker is settled"
    CURRENT = "I3: a result counts only for the current attempt"
    RISING = "I4: a fence rises with every claim and only there"
    ALONE = "I5: no attempt is taken from a worker that may still start or run it, before its lease is over"
    ORDERED = "I7: a step is inserted with the commit of its predecessor's success"
    WHOLE = "I8: a run is open exactly as long as one of its steps is"
    CANCELLED = "I10: after a cancel nothing is claimed and no step is inserted"
    OWNED = "I14: a result counts only on the session that owns its attempt"
    ENDING = "L: from every state, without further faults, everything ends and every result is acknowledged"


class Phase(IntEnum):
    """Where an attempt stands on its worker; from SUCCEEDED on it is a result, which the spool keeps."""

    WAITING = 0
    RUNNING = 1
    SUCCEEDED = 2
    FAILED = 3
    RETURNED = 4


class Closed(IntEnum):
    """`sessions.closed_reason`."""

    OPEN = 0
    REPLACED = 1
    RESTARTED = 2
    LAPSED = 3
    ENDED = 4


class Kind(IntEnum):
    """What is sent on a stream. A Cancel has no message: it may arrive at any time, or never."""

    HELLO = 0
    RESULT = 1
    WELCOME = 2
    ASSIGN = 3
    ACK = 4


class Attempt(NamedTuple):
    """`claim` counts the claims of the job: the truth, which no guard may look at. Guards see fence and token."""

    job: int
    claim: int
    fence: int
    token: int


class Place(NamedTuple):
    """Names a session: the worker's index and the number of its Hello."""

    worker: int
    number: int


NO_ATTEMPT: Final = Attempt(0, 0, 0, 0)
NOWHERE: Final = Place(-1, 0)


class Job(NamedTuple):
    """A row of `jobs`. `place` is its session_id while it runs."""

    state: State
    last: Attempt
    place: Place
    attempt: int
    cancel: bool


class Run(NamedTuple):
    """A row of `workflow_runs`."""

    state: RunState
    cancel: bool


class Held(NamedTuple):
    """An attempt on its worker. `sent`: its result was written to the current stream."""

    attempt: Attempt
    phase: Phase
    sent: bool


class Message(NamedTuple):
    """One message; the fields that its kind does not use have their defaults."""

    kind: Kind
    attempt: Attempt = NO_ATTEMPT
    phase: Phase = Phase.WAITING
    held: tuple[Held, ...] = ()
    """Of Hello: what the worker holds; of Welcome: what it must not hold any more."""
    old: bool = False
    """Of Hello: a former incarnation of the worker has sent it."""


class Session(NamedTuple):
    """A row of `sessions`, and whether its server serves it (`Sessions.get`).

    `lease`: its time is not over, on Postgres' clock. `old`: of a former incarnation of its worker.
    """

    number: int
    server: int
    closed: Closed
    lease: bool
    old: bool
    served: bool


class Worker(NamedTuple):
    """A worker and its current stream, whose number is 0 if there is none.

    `sure`: the worker believes in its lease. A dead worker keeps its spool in `held`.
    """

    alive: bool
    stream: int
    server: int
    welcomed: bool
    sure: bool
    number: int
    held: tuple[Held, ...]
    up: tuple[Message, ...]
    down: tuple[Message, ...]
    sessions: tuple[Session, ...]


class Claim(NamedTuple):
    """A claim statement under way: its session was open when it was read. `heard`: someone waits for its answer."""

    job: int
    place: Place
    heard: bool


class Orphan(NamedTuple):
    """What the sweep has read and not yet settled."""

    attempt: Attempt
    place: Place
    closed: Closed


class Late(NamedTuple):
    """A message of a stream that its worker has given up: still in the network, or in the server's queue."""

    place: Place
    message: Message


class Server(NamedTuple):
    """What a server has under way. `debts`: jobs whose successor it means to insert (one of the flaws)."""

    claims: tuple[Claim, ...] = ()
    orphans: tuple[Orphan, ...] = ()
    late: tuple[Late, ...] = ()
    debts: tuple[int, ...] = ()


class Left(NamedTuple):
    """How much may still happen that is not the protocol's own doing."""

    faults: int
    cancels: int
    retries: int


class World(NamedTuple):
    """One state of everything. `run` is empty for a plain job."""

    jobs: tuple[Job, ...]
    run: tuple[Run, ...]
    workers: tuple[Worker, ...]
    servers: tuple[Server, ...]
    left: Left


class Deed(NamedTuple):
    """What a move did, as far as invariants ask for it; `attempt` and `place` are those that it named."""

    act: "Act"
    attempt: Attempt = NO_ATTEMPT
    place: Place = NOWHERE
    closed: Closed = Closed.OPEN


class Act(IntEnum):
    """The kinds of deeds."""

    CLAIM = 0
    START = 1
    SETTLE = 2
    FORGET = 3
    SWEEP = 4
    RETRY = 5


class Move(NamedTuple):
    """One step. `text` names worker and server as {worker} and {server}.

    `fair`: it happens sooner or later if it stays possible. Faults and people's wishes are not fair.
    """

    text: str
    after: World
    fair: bool = True
    worker: int = 0
    server: int = 0
    deed: Deed | None = None
