"""Protocols with one mistake each. A search that does not reject them would prove nothing about the true one."""

from enum import StrEnum
from typing import Final

from tests.model.words import Invariant


class Flaw(StrEnum):
    """One mistake. The value is its name on the command line."""

    NO_FENCE = "no_fence"
    """A result is settled if its job runs, whoever runs it."""
    NO_TOKEN = "no_token"
    """Guards compare the fence and not the token."""
    NO_GUARD = "no_guard"
    """A claim does not look at the state of the job."""
    CLAIM_IGNORES_CANCEL = "claim_ignores_cancel"
    """A claim does not look at the wish to cancel."""
    ACK_BEFORE_COMMIT = "ack_before_commit"
    """The server answers a result before it has settled it."""
    ADVANCE_OUTSIDE_TX = "advance_outside_tx"
    """The next step is inserted by a transaction of its own."""
    ATTEMPT_AS_FENCE = "attempt_as_fence"
    """The fence is the number of the attempt, which an operator's retry resets; no token either."""
    CLOSE_WITHOUT_GUARD = "close_without_guard"
    """Expiry closes what it has read as lapsed, and does not see that it was renewed meanwhile."""
    SWEEP_BEFORE_CLOSE = "sweep_before_close"
    """Jobs of a lapsed session are given back while it can still be renewed."""
    SWEEP_IGNORES_SESSION = "sweep_ignores_session"
    """The sweep does not see that Hello has moved the job since it was read."""
    RESUME_IGNORES_FENCE = "resume_ignores_fence"
    """Hello takes over what runs under the id of a held job, whichever attempt and whoever runs it."""
    RESUME_IGNORES_FINISHED = "resume_ignores_finished"
    """Hello names what waits and runs, not the results that wait to be acknowledged."""
    OLD_HELLO_WINS = "old_hello_wins"
    """A Hello that was delayed replaces the stream that came after it."""
    START_WITHOUT_LEASE = "start_without_lease"
    """The worker starts what waits although its lease is not sure."""
    BEAT_BEFORE_RENEWAL = "beat_before_renewal"
    """The server acknowledges a beat whether or not the renewal went through."""
    FORGOTTEN_RENEWAL = "forgotten_renewal"
    """Postgres crashes and forgets a renewal, which commits asynchronously, and no grace follows."""
    RETURN_AT_DISCONNECT = "return_at_disconnect"
    """The end of a stream gives its jobs back, not Hello, a nack or expiry."""
    TERMINAL_NOT_ABSORBING = "terminal_not_absorbing"
    """A cancel does not look whether the job has ended."""


# What each of them breaks. None: nothing within these bounds, for the reason given.
BREAKS: Final[dict[Flaw, Invariant | None]] = {
    Flaw.NO_FENCE: Invariant.CURRENT,
    # A fence is given twice only by a Postgres that has forgotten a claim: a standby that was promoted too early,
    # a restored backup. The model has none of these; the token is for them.
    Flaw.NO_TOKEN: None,
    Flaw.NO_GUARD: Invariant.ALONE,
    # A waiting job is cancelled at once, and a running one ends cancelled: none is ever both waiting and marked.
    Flaw.CLAIM_IGNORES_CANCEL: None,
    Flaw.ACK_BEFORE_COMMIT: Invariant.KEPT,
    Flaw.ADVANCE_OUTSIDE_TX: Invariant.ENDING,
    Flaw.ATTEMPT_AS_FENCE: Invariant.CURRENT,
    Flaw.CLOSE_WITHOUT_GUARD: Invariant.ALONE,
    Flaw.SWEEP_BEFORE_CLOSE: Invariant.ALONE,
    Flaw.SWEEP_IGNORES_SESSION: Invariant.ALONE,
    Flaw.RESUME_IGNORES_FENCE: Invariant.ALONE,
    Flaw.RESUME_IGNORES_FINISHED: Invariant.ALONE,
    Flaw.OLD_HELLO_WINS: Invariant.ALONE,
    Flaw.START_WITHOUT_LEASE: Invariant.ALONE,
    Flaw.BEAT_BEFORE_RENEWAL: Invariant.ALONE,
    Flaw.FORGOTTEN_RENEWAL: Invariant.ALONE,
    Flaw.RETURN_AT_DISCONNECT: Invariant.ALONE,
    Flaw.TERMINAL_NOT_ABSORBING: Invariant.ONE_END,
}
