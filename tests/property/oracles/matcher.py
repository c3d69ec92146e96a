"""The matcher with plain lists and sets, where every question is answered by looking at everything.

It says what is allowed (credits, lanes, shares). Which of several fair choices is taken, the Rust
matcher decides; `demand` and `assign` here take the first.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.property.oracles.outbox import split

PREFETCH_WINDOW_MS = 80
PREFETCH_TIMES = 2
PREFETCH_STALE_MS = 1000
PREFETCH_MAX = 1000

Kind = tuple[frozenset[str], frozenset[str]]


@dataclass(frozen=True, kw_only=True)
class Lane:
    queue: str
    requires: frozenset[str]


@dataclass(kw_only=True)
class Session:
    profile: int
    slots: int
    outstanding: int = 0
    busy_ms: int = 0
    """For how many milliseconds it had jobs."""
    finished: list[tuple[int, int]] = field(default_factory=list)
    """When, and how long it had had jobs by then."""


class PlainMatcher:
    """The same words as the Rust class."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.lanes: dict[int, Lane] = {}
        self.suspects: set[int] = set()
        self.woken: set[int] = set()
        self.filled: set[int] = set()
        self.partial: set[int] = set()
        self.asked: set[int] = set()
        self.assigned = 0
        self.sessions: dict[int, Session] = {}
        self.profiles: dict[int, Kind] = {}
        self.profiles_made = 0

    def set_lane(self, lane: int, queue: str, requires: Iterable[str]) -> None:
        if lane not in self.lanes:
            self.lanes[lane] = Lane(queue=queue, requires=frozenset(requires))
            self.wake([lane])

    def open_session(self, session: int, slots: int, queues: Iterable[str], labels: Iterable[str]) -> None:
        kind = (frozenset(queues), frozenset(labels))
        profile = next((number for number, known in self.profiles.items() if known == kind), None)
        if profile is None:
            profile = self.profiles_made
            self.profiles_made += 1
            self.profiles[profile] = kind
        self.sessions[session] = Session(profile=profile, slots=slots)

    def close_session(self, session: int) -> None:
        closed = self.sessions.pop(session, None)
        if closed and not self.sessions_of(closed.profile):
            del self.profiles[closed.profile]

    def set_slots(self, session: int, slots: int) -> None:
        if session in self.sessions:
            self.sessions[session].slots = slots

    def advance(self, now_ms: int) -> None:
        """Let time pass, which never runs back."""
        for state in self.sessions.values():
            if state.outstanding:
                state.busy_ms += max(0, now_ms - self.now_ms)
        self.now_ms = max(self.now_ms, now_ms)

    def hold(self, session: int, n: int) -> None:
        if session in self.sessions:
            self.sessions[session].outstanding += n

    def finished(self, sessions: Sequence[int], now_ms: int) -> None:
        self.advance(now_ms)
        self.release(sessions)
        for session in sessions:
            if session in self.sessions:
                state = self.sessions[session]
                state.finished.append((self.now_ms, state.busy_ms))

    def release(self, sessions: Sequence[int]) -> None:
        for session in sessions:
            if session in self.sessions:
                state = self.sessions[session]
                state.outstanding = max(0, state.outstanding - 1)

    def wake(self, lanes: Sequence[int]) -> list[int]:
        known = {lane for lane in lanes if lane in self.lanes}
        self.suspects |= known
        self.woken |= known
        self.filled |= known
        self.partial -= known
        return [lane for lane in lanes if lane not in self.lanes]

    def suspect_all(self, *, filled: bool = False) -> None:
        self.suspects |= set(self.lanes)
        self.woken |= set(self.lanes)
        if filled:
            self.filled |= set(self.lanes)

    def found_empty(self, lanes: Sequence[int]) -> None:
        self.suspects -= set(lanes) - self.woken
        self.filled -= set(lanes) - self.woken
        self.filled |= self.asked - set(lanes)
        self.asked = set()

    def found_partial(self, lanes: Sequence[int]) -> None:
        self.partial |= {lane for lane in lanes if lane in self.lanes} - self.woken

    def direct_profiles(self, lane: int) -> list[int]:
        """The profiles that may be given new jobs of a lane at once: they serve it, and nothing waits for them."""
        return [
            profile
            for profile in self.profiles
            if lane in self.served_by(profile, set(self.lanes))
            and not self.served_by(profile, self.filled | self.partial)
        ]

    def room(self, lane: int, now_ms: int) -> tuple[int, int, int, int]:
        self.advance(now_ms)
        serving = [each for each in self.profiles if lane in self.served_by(each, set(self.lanes))]
        sessions = [self.sessions[number] for each in serving for number in self.sessions_of(each)]
        return (
            sum(map(self.credits_of, self.direct_profiles(lane))) if lane in self.lanes else 0,
            sum(session.outstanding for session in sessions),
            sum(len(self.lately(session)) for session in sessions),
            self.assigned,
        )

    def demand(self, now_ms: int, max_lanes: int = 64, max_hints: int = 1000) -> list[tuple[int, int, list[int]]]:
        self.advance(now_ms)
        profiles = self.wanting()[: min(max_lanes, max_hints)]
        budgets = deal([self.credits_of(profile) for profile in profiles], max_hints)
        limits = deal([len(self.suspects_of(profile)) for profile in profiles], max_lanes)
        demands = []
        self.asked = set()
        for profile, budget, limit in zip(profiles, budgets, limits, strict=True):
            lanes = sorted(self.suspects_of(profile))[:limit]
            self.woken -= set(lanes)
            self.asked |= set(lanes)
            demands.append((profile, budget, lanes))
        return demands

    def assign(self, profile: int, hints: bytes) -> tuple[list[int], list[int], bytes]:
        waiting = split(hints)
        given: list[int] = []
        while len(given) < len(waiting):
            free = [session for session in self.sessions_of(profile) if self.free(session) > 0]
            if not free:
                break
            for session in free[: len(waiting) - len(given)]:
                self.sessions[session].outstanding += 1
                given.append(session)
        ids = [int(hint[9:], 16) for hint in waiting[: len(given)]]
        return ids, given, b"".join(waiting[len(given) :])

    def free(self, session: int) -> int:
        state = self.sessions.get(session)
        if state is None or state.slots == 0:
            return 0
        prefetch = min(PREFETCH_TIMES * len(self.lately(state)), PREFETCH_MAX)
        return max(0, state.slots + prefetch - state.outstanding)

    def lately(self, state: Session) -> list[tuple[int, int]]:
        """What a session finished within the window."""
        return [
            (at_ms, busy_ms)
            for at_ms, busy_ms in state.finished
            if state.busy_ms < busy_ms + PREFETCH_WINDOW_MS and self.now_ms < at_ms + PREFETCH_STALE_MS
        ]

    def stats(self) -> dict[str, int]:
        return {
            "sessions": len(self.sessions),
            "profiles": len(self.profiles),
            "lanes": len(self.lanes),
            "suspects": len(self.suspects),
            "credits": sum(map(self.free, self.sessions)),
        }

    def wanting(self) -> list[int]:
        """The profiles with credit and a lane that may have something."""
        return [profile for profile in self.profiles if self.credits_of(profile) > 0 and self.suspects_of(profile)]

    def sessions_of(self, profile: int) -> list[int]:
        return [session for session, state in self.sessions.items() if state.profile == profile]

    def credits_of(self, profile: int) -> int:
        return sum(map(self.free, self.sessions_of(profile)))

    def suspects_of(self, profile: int) -> set[int]:
        return self.served_by(profile, self.suspects)

    def served_by(self, profile: int, lanes: set[int]) -> set[int]:
        """Those of the lanes whose queue the profile has, and whose labels are among its own."""
        queues, labels = self.profiles[profile]
        return {lane for lane in lanes if self.lanes[lane].queue in queues and self.lanes[lane].requires <= labels}


def deal(wants: Sequence[int], total: int) -> list[int]:
    """Deal `total` one by one, round after round, to those who still want."""
    shares = [0] * len(wants)
    while total > 0 and any(share < want for share, want in zip(shares, wants, strict=True)):
        for place, want in enumerate(wants):
            if shares[place] < want and total > 0:
                shares[place] += 1
                total -= 1
    return shares
