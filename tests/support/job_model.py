"""A job as reliability asks for it: a slow, obvious twin of what SQL does, for the state machine of the tests."""

from dataclasses import dataclass, field

from orqestra.model.decision import Ending, Outcome
from orqestra.model.lifecycle import State
from orqestra.model.report import AttemptRef, Verdict

LOST_MAX = 5
RETURNS_MAX = 20
WAITING = (State.PENDING, State.RETRYING)
ENDED = (State.COMPLETED, State.FAILED, State.CANCELLED)


@dataclass
class ModelSession:
    """A stream of a worker. `reason` is why it was closed, if it was."""

    id: int
    worker: int
    reason: str | None = None

    @property
    def loses(self) -> bool:
        """Whether what ran on it counts as lost; else it was only not delivered."""
        return self.reason in ("lapsed", "restarted")


@dataclass
class ModelJob:
    """A job with all its claims and what became of them."""

    id: int
    max_retries: int
    early: bool
    state: State = State.PENDING
    attempt: int = 0
    lost: int = 0
    returned: int = 0
    fence: int = 0
    token: int = 0
    session: ModelSession | None = None
    cancel_requested: bool = False
    claims: list[AttemptRef] = field(default_factory=list)
    kept: dict[int, Outcome] = field(default_factory=dict)

    def claim(self, session: ModelSession, token: int) -> bool:
        """Claim it if that is allowed."""
        if self.state not in WAITING or self.early or self.cancel_requested or session.reason:
            return False
        self.state, self.fence, self.token, self.session = State.RUNNING, self.fence + 1, token, session
        self.claims.append(AttemptRef(self.id, self.fence, token))
        return True

    def report(self, attempt: AttemptRef, session: ModelSession, ending: Ending) -> Verdict | None:
        """Apply what a worker says of an attempt; return the answer that is due."""
        if attempt in self.claims and attempt.fence in self.kept:
            gone = self.kept[attempt.fence] in (Outcome.LOST, Outcome.RETURNED)
            return Verdict.STALE if gone else Verdict.DUPLICATE
        if (attempt.fence, attempt.token) != (self.fence, self.token):
            return Verdict.STALE
        if self.state is not State.RUNNING:
            return Verdict.DUPLICATE
        if self.session is not session:
            return None
        self.end(ending)
        return Verdict.ACCEPTED

    def end(self, ending: Ending) -> None:
        """End the attempt that runs."""
        self._count(ending)
        self.state = State.CANCELLED if self.cancel_requested else self._next(ending)
        if self.state is not State.COMPLETED:
            self.kept[self.fence] = Outcome.COMPLETED if ending is Ending.SUCCEEDED else Outcome(ending)

    def cancel(self) -> State:
        """Ask for its cancellation; return what it was."""
        was = self.state
        if was in WAITING:
            self.state = State.CANCELLED
        if was not in ENDED:
            self.cancel_requested = True
        return was

    def retry(self) -> bool:
        """Put it back as an operator; False: it may not be."""
        if self.state not in (State.FAILED, State.CANCELLED):
            return False
        self.state, self.early, self.cancel_requested = State.PENDING, False, False
        self.attempt = self.lost = self.returned = 0
        return True

    def _count(self, ending: Ending) -> None:
        if ending in (Ending.SUCCEEDED, Ending.FAILED):
            self.attempt += 1
            self.returned = 0
        elif ending is Ending.LOST:
            self.lost += 1
        else:
            self.returned += 1

    def _next(self, ending: Ending) -> State:
        if ending is Ending.SUCCEEDED:
            return State.COMPLETED
        if ending is Ending.FAILED:
            return State.RETRYING if self.attempt <= self.max_retries else State.FAILED
        if self.lost >= LOST_MAX or self.returned >= RETURNS_MAX:
            return State.FAILED
        return State.PENDING
