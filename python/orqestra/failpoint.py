"""Named moments between two steps, at which a test may hold this process or end it.

Outside tests nothing happens at them: there is no setting and no environment variable that switches
them on. A test starts its processes by `tests/chaos/launch.py`, which hands in what is to happen.
"""

from collections.abc import Callable
from enum import StrEnum


class Point(StrEnum):
    """The moments, in the order in which a job passes them."""

    SUBMIT_BEFORE_TX = "submit.before_tx"
    SUBMIT_BEFORE_REPLY = "submit.after_commit_before_reply"
    DIRECT_STORED = "direct.after_commit_before_send"
    RELAY_READ = "relay.after_read"
    RELAY_PUSHED = "relay.after_push_before_delete"
    PROMOTED = "promote.mid"
    TAKEN = "dispatch.after_pop_before_claim"
    CLAIMED = "claim.after_commit_before_send"
    SENT = "send.after_write"
    RECEIVED = "worker.recv_before_ack"
    ACCEPTED = "worker.accepted_before_spawn"
    # These two are the supervisor's, which is told by other means where to halt (`supervise`).
    EXITED = "worker.exited_before_spool_fsync"
    SPOOLED = "spool.after_fsync_before_send"
    SETTLED = "result.after_commit_before_ack"
    ACKNOWLEDGED = "worker.after_ack_before_spool_delete"
    CANCELLED = "cancel.after_commit_before_push"
    ORPHANS_FOUND = "expire.after_select_before_commit"
    REFILLING = "rebuild.mid"


_on_reach: Callable[[Point], None] | None = None


def reached(point: Point) -> None:
    """Say that this process is at a point; what a test does there, it does before this returns."""
    if _on_reach is not None:
        _on_reach(point)


def on_reach(call: Callable[[Point], None]) -> None:
    """Have `call` called at every point from now on. For the launcher of tests only."""
    # The one module-level state of the package: points lie where no object of a test could be handed in.
    global _on_reach  # noqa: PLW0603  see above
    _on_reach = call
