"""`Matcher` against its plain twin, through any sequence of events."""

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from orqestra._dispatch import Demand, Matcher
from tests.property.oracles.matcher import PlainMatcher, deal
from tests.property.oracles.outbox import Entry, hint

queue = st.sampled_from(["a", "b", "c"])
label = st.sampled_from(["gpu=1", "os=linux", "zone=x"])
session = st.integers(1, 8)
# Now and then so long that nothing counts any more, and a step back.
passed = st.integers(-5, 25) | st.sampled_from([0, 79, 80, 500, 1000])
lane = st.integers(1, 100)
some_sessions = st.lists(session, max_size=12)
some_lanes = st.lists(lane, max_size=12)


class Matching(RuleBasedStateMachine):
    """Do the same to both; whatever Rust chooses has to be among what the twin allows."""

    def __init__(self) -> None:
        super().__init__()
        self.twin = PlainMatcher()
        self.now_ms = 0
        self.next_job = 0

    @initialize(pack=st.booleans())
    def begin(self, pack: bool) -> None:
        self.pack = pack
        self.matcher = Matcher(pack=pack)

    @rule(lanes=st.lists(st.tuples(lane, queue, st.sets(label, max_size=2)), max_size=10))
    def set_lanes(self, lanes: list[tuple[int, str, set[str]]]) -> None:
        for number, queue_name, requires in lanes:
            known = self.twin.lanes.get(number)
            if known and (known.queue != queue_name or known.requires != requires):
                with pytest.raises(ValueError, match="is known with another queue"):
                    self.matcher.set_lane(number, queue_name, list(requires))
            else:
                self.matcher.set_lane(number, queue_name, list(requires))
                self.twin.set_lane(number, queue_name, requires)

    @rule(number=session, slots=st.integers(0, 9), queues=st.sets(queue), labels=st.sets(label))
    def open_session(self, number: int, slots: int, queues: set[str], labels: set[str]) -> None:
        if number in self.twin.sessions:
            with pytest.raises(ValueError, match="is open already"):
                self.matcher.open_session(number, slots, list(queues), list(labels))
        else:
            self.matcher.open_session(number, slots, list(queues), list(labels))
            self.twin.open_session(number, slots, queues, labels)

    @rule(number=session)
    def close_session(self, number: int) -> None:
        self.matcher.close_session(number)
        self.twin.close_session(number)

    @rule(number=session, slots=st.integers(0, 9))
    def set_slots(self, number: int, slots: int) -> None:
        self.matcher.set_slots(number, slots)
        self.twin.set_slots(number, slots)

    @rule(number=session, count=st.integers(0, 12))
    def hold(self, number: int, count: int) -> None:
        self.matcher.hold(number, count)
        self.twin.hold(number, count)

    @rule(numbers=some_sessions, copies=st.sampled_from([1, 1, 1, 100]), passed_ms=passed)
    def finished(self, numbers: list[int], copies: int, passed_ms: int) -> None:
        self.now_ms += passed_ms
        self.matcher.finished(numbers * copies, self.now_ms)
        self.twin.finished(numbers * copies, self.now_ms)

    @rule(numbers=some_sessions)
    def release(self, numbers: list[int]) -> None:
        self.matcher.release(numbers)
        self.twin.release(numbers)

    @rule(numbers=some_lanes)
    def wake(self, numbers: list[int]) -> None:
        assert self.matcher.wake(numbers) == self.twin.wake(numbers)

    @rule(filled=st.booleans())
    def suspect_all(self, filled: bool) -> None:
        self.matcher.suspect_all(filled=filled)
        self.twin.suspect_all(filled=filled)

    @rule(numbers=some_lanes)
    def found_empty(self, numbers: list[int]) -> None:
        self.matcher.found_empty(numbers)
        self.twin.found_empty(numbers)

    @rule(
        passed_ms=passed,
        max_lanes=st.integers(0, 12) | st.just(64),
        max_hints=st.integers(0, 12) | st.just(1000),
        woken=some_lanes,
        surplus=st.integers(0, 3),
    )
    def take(self, passed_ms: int, max_lanes: int, max_hints: int, woken: list[int], surplus: int) -> None:
        """A demand, wakes that come in between, and the assignment of what was taken."""
        self.now_ms += passed_ms
        demands = self.matcher.demand(self.now_ms, max_lanes, max_hints)
        self.twin.advance(self.now_ms)
        self.check_shares(demands, max_lanes, max_hints)
        asked = {number for demand in demands for number in self.check_lanes(demand)}
        self.twin.woken -= asked
        self.twin.asked = asked
        self.wake(woken)
        self.found_empty(sorted(asked)[::2])
        for demand in demands:
            self.check_assignment(demand.profile, demand.budget + surplus)

    @rule(numbers=some_lanes)
    def found_partial(self, numbers: list[int]) -> None:
        self.matcher.found_partial(numbers)
        self.twin.found_partial(numbers)

    @rule(number=lane, count=st.integers(0, 12), passed_ms=passed)
    def direct(self, number: int, count: int, passed_ms: int) -> None:
        """New jobs of a lane: only for whom nothing waits, and as many as there is credit for."""
        self.now_ms += passed_ms
        self.twin.advance(self.now_ms)
        profiles = self.twin.direct_profiles(number) if number in self.twin.lanes else []
        credits = {session: self.twin.free(session) for each in profiles for session in self.twin.sessions_of(each)}
        given = self.matcher.direct(number, count, self.now_ms)
        assert len(given) == min(count, sum(credits.values()))
        assert all(share <= credits[session] for session, share in Counter(given).items())
        for session in given:
            self.twin.sessions[session].outstanding += 1

    @rule(number=lane, passed_ms=passed)
    def room(self, number: int, passed_ms: int) -> None:
        self.now_ms += passed_ms
        assert self.matcher.room(number, self.now_ms) == self.twin.room(number, self.now_ms)

    @rule(profile=st.integers(0, 20), count=st.integers(0, 5))
    def assign_late(self, profile: int, count: int) -> None:
        """To any profile, also one that is gone."""
        self.check_assignment(profile, count)

    @invariant()
    def both_hold_the_same(self) -> None:
        assert self.matcher.stats() == self.twin.stats()
        for number in self.twin.sessions:
            assert self.matcher.free(number) == self.twin.free(number)

    def check_shares(self, demands: list[Demand], max_lanes: int, max_hints: int) -> None:
        wanting = self.twin.wanting()
        profiles = [demand.profile for demand in demands]
        assert set(profiles) <= set(wanting)
        assert len(set(profiles)) == len(profiles) == min(len(wanting), max_lanes, max_hints)
        credits = [self.twin.credits_of(profile) for profile in profiles]
        assert [demand.budget for demand in demands] == deal(credits, max_hints)
        suspects = [len(self.twin.suspects_of(profile)) for profile in profiles]
        asked = [len(_queues(demand.lanes, flat=True)[0]) for demand in demands]
        assert asked == deal(suspects, max_lanes)

    def check_lanes(self, demand: Demand) -> list[int]:
        suspects = self.twin.suspects_of(demand.profile)
        queues = _queues(demand.lanes)
        wants = []
        for lanes in queues:
            (name,) = {self.twin.lanes[number].queue for number in lanes}
            wants.append(len([number for number in suspects if self.twin.lanes[number].queue == name]))
        asked = [number for lanes in queues for number in lanes]
        assert set(asked) <= suspects
        assert len(set(asked)) == len(asked)
        assert [len(lanes) for lanes in queues] == deal(wants, len(asked))
        return asked

    def check_assignment(self, profile: int, count: int) -> None:
        ids = list(range(self.next_job, self.next_job + count))
        self.next_job += count
        hints = [hint(Entry(id=number, lane=number % 3 + 1, priority=5, due_ms=0)) for number in ids]
        credits = {number: self.twin.free(number) for number in self.twin.sessions_of(profile)}
        assignment = self.matcher.assign(profile, b"".join(hints))
        given = len(assignment.ids)
        assert given == len(assignment.sessions) == min(count, sum(credits.values()))
        assert assignment.ids == ids[:given]
        assert assignment.lanes == sorted({number % 3 + 1 for number in ids})
        assert assignment.leftover == b"".join(hints[given:])
        shares = Counter(assignment.sessions)
        assert all(share <= credits[number] for number, share in shares.items())
        if self.pack:
            assert len([number for number, share in shares.items() if share < credits[number]]) <= 1
        else:
            open_shares = [shares[number] for number in credits if shares[number] < credits[number]]
            assert max(shares.values(), default=0) <= min(open_shares, default=given) + 1
        self.twin.assigned += given
        for number in assignment.sessions:
            self.twin.sessions[number].outstanding += 1


TestMatching = Matching.TestCase
TestMatching.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_every_lane_is_asked_though_all_have_something() -> None:
    matcher = Matcher()
    for number in range(1000):
        matcher.set_lane(number, f"queue-{number % 3}", [])
    matcher.open_session(1, 1, ["queue-0", "queue-1", "queue-2"], [])
    asked = Counter(number for _ in range(32) for number in _queues(matcher.demand(0)[0].lanes, flat=True)[0])
    assert len(asked) == 1000
    assert max(asked.values()) <= 3


def test_every_profile_comes_first_for_the_lane_they_share() -> None:
    matcher = Matcher()
    matcher.set_lane(1, "a", [])
    for number in range(100):
        matcher.open_session(number, 1, ["a"], [f"host={number}"])
    firsts = Counter(matcher.demand(0)[0].profile for _ in range(1000))
    assert len(firsts) == 100


def _queues(lanes: bytes, *, flat: bool = False) -> list[list[int]]:
    """Parse `b"12,15;7"` into lanes by queue, or with `flat` into one list of all."""
    text = lanes.decode().replace(";", ",") if flat else lanes.decode()
    return [[int(number) for number in queue_text.split(",")] for queue_text in text.split(";")]
