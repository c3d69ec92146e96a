"""How long a worker may believe that its jobs are its own. Pure: times come from the caller.

Times are seconds of a clock that goes on while the machine is suspended or the process is stopped,
and are taken before a message is sent: the server can only have heard it later, so its lease ends later.
"""

import sys
import time
from typing import Final

BEATS_PER_LEASE: Final = 4
# Of the lease: what the clocks of two machines may differ by while they count it.
MARGIN: Final = 0.1
# Servers renew once a second. Of the shortest leases half would not outlast one late renewal: there
# the silence may last two, but a third of the lease stays to find another server. A stream that is
# given up too early costs one Hello, a lease that runs out costs the jobs.
TWO_RENEWALS_SECONDS: Final = 2.0
SHARE_TO_RECONNECT: Final = 1 / 3


class Lease:
    """The lease of one session, kept up by beats that the server acknowledges."""

    def __init__(self, lease_seconds: float, hello_sent_at: float, now: float) -> None:
        self.beat_seconds = lease_seconds / BEATS_PER_LEASE
        self._sure_seconds = lease_seconds * (1 - MARGIN)
        self._patience_seconds = _patience_seconds(lease_seconds)
        self._sure_until = hello_sent_at + self._sure_seconds
        self._silent_at = now + self._patience_seconds
        self._sent: dict[int, float] = {}
        self._covered = 0

    def sent(self, beat: int, now: float) -> None:
        """Note that a beat is about to be sent. Beats are numbered upwards from 1."""
        self._sent[beat] = now

    def covered(self, beat: int, now: float) -> bool:
        """Note that the server renewed the lease after this beat; return whether that is news."""
        if beat <= self._covered or beat not in self._sent:
            return False
        self._covered = beat
        self._silent_at = now + self._patience_seconds
        self._sure_until = self._sent[beat] + self._sure_seconds
        self._sent = {number: at for number, at in self._sent.items() if number > beat}
        return True

    @property
    def sure_until(self) -> float:
        """Until when no server can have given the jobs that wait here to another worker."""
        return self._sure_until

    def allows_start(self, now: float) -> bool:
        """Return whether no server can have given the jobs that wait here to another worker yet."""
        return now < self._sure_until

    def seconds_until_silent(self, now: float) -> float:
        """Return how long to wait for the next news before the stream counts as dead; 0 if it does."""
        return max(0.0, self._silent_at - now)


def _patience_seconds(lease_seconds: float) -> float:
    """Return for how long no beat may be covered: half the lease, of short leases somewhat more."""
    return max(lease_seconds / 2, min(TWO_RENEWALS_SECONDS, lease_seconds * (1 - SHARE_TO_RECONNECT)))


def boot_seconds() -> float:
    """Return the time since the machine was started, suspended times included."""
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    # The monotonic clock of macOS goes on while the machine is suspended, that of Linux does not.
    return time.clock_gettime(time.CLOCK_MONOTONIC)
