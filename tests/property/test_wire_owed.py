"""`Owed` against a dict and a list, under any order of events."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from orqestra._dispatch import Owed
from orqestra.v1 import worker_pb2 as pb
from orqestra.worker.outcome import nothing_done
from tests.property.oracles.wire import attempt_in, some_bytes
from tests.support.on_wire import acks_of, assigned, results_in

Ref = tuple[int, int, int]
Verdict = pb.ResultAcks.Verdict
# What stands before a short result in a message, which is not counted of the last one.
ENVELOPE_BYTES = 2
EXPECTED = (Verdict.VERDICT_ACCEPTED, Verdict.VERDICT_DUPLICATE)

# So few that the same one comes up again and again.
refs = st.tuples(st.integers(1, 4), st.integers(1, 2), st.just(9))
# The last one is of a later version.
verdicts = st.sampled_from([*EXPECTED, Verdict.VERDICT_STALE, Verdict.VERDICT_UNKNOWN, 9])


def wire_ref(ref: Ref) -> pb.AttemptRef:
    return pb.AttemptRef(job_id=ref[0], fence=ref[1], token=ref[2])


class OwedMachine(RuleBasedStateMachine):
    """`results` is all that is owed, in order; `ready` what may be sent on this stream and was not."""

    def __init__(self) -> None:
        super().__init__()
        self.owed = Owed()
        self.results: dict[Ref, pb.Result] = {}
        self.held_back: set[Ref] = set()
        self.noops: set[Ref] = set()
        self.ready: list[Ref] = []
        self.now_us = 0

    # What comes up

    @rule(ref=refs, stdout=some_bytes, held_back=st.booleans())
    def add(self, ref: Ref, stdout: bytes, held_back: bool) -> None:
        result = pb.Result(attempt=wire_ref(ref), reason="exited", exit_code=3, stdout=stdout)

        self.owed.add(ref, result.SerializeToString(), held_back=held_back)

        self._forget(ref)
        self.results[ref] = result
        if held_back:
            self.held_back.add(ref)
        else:
            self.ready.append(ref)

    @rule(came=st.lists(refs, max_size=4))
    def add_noops(self, came: list[Ref]) -> None:
        self.now_us += 1
        jobs = [pb.Assignment(attempt=wire_ref(ref), type="noop") for ref in came]

        self.owed.add_noops(assigned(jobs, apart=True), self.now_us)

        for ref, job in zip(came, jobs, strict=True):
            if ref not in self.results:
                self.results[ref] = pb.Result.FromString(nothing_done(job, self.now_us).result)
                self.noops.add(ref)
                self.ready.append(ref)

    @rule(ref=refs)
    def release(self, ref: Ref) -> None:
        self.owed.release(ref)

        if ref in self.held_back:
            self.held_back.remove(ref)
            self.ready.append(ref)

    # What is sent

    @rule(most_jobs=st.integers(1, 3), most_bytes=st.integers(0, 60) | st.just(1 << 20))
    def take(self, most_jobs: int, most_bytes: int) -> None:
        message = self.owed.take(most_jobs, most_bytes)

        assert (message is None) == (not self.ready)
        if message is None:
            return
        sent = results_in(message)
        assert sent == [self.results[ref] for ref in self.ready[: len(sent)]]
        assert 1 <= len(sent) <= most_jobs
        body = pb.Results(results=sent).ByteSize()
        assert len(sent) == 1 or body <= most_bytes + ENVELOPE_BYTES
        rest = self.ready[len(sent) :]
        if rest and len(sent) < most_jobs:
            assert pb.Results(results=[*sent, self.results[rest[0]]]).ByteSize() > most_bytes
        self.ready = rest

    @rule()
    def offer_again(self) -> None:
        self.owed.offer_again()

        self.ready = [ref for ref in self.results if ref not in self.held_back]

    # What is over

    @rule(ref=refs)
    def remove(self, ref: Ref) -> None:
        assert self.owed.remove(ref) == (ref in self.results)

        self._forget(ref)

    @rule(answers=st.lists(st.tuples(refs, verdicts), max_size=4))
    def acknowledge(self, answers: list[tuple[Ref, "Verdict"]]) -> None:
        told = self.owed.acknowledge(acks_of([(wire_ref(ref), verdict) for ref, verdict in answers]))

        expected = []
        for ref, verdict in answers:
            if verdict not in EXPECTED or ref not in self.noops:
                expected.append((ref, verdict, ref in self.results))
            self._forget(ref)
        assert told == expected

    # What always holds

    @invariant()
    def all_that_is_owed_is_known(self) -> None:
        assert self.owed.attempts() == list(self.results)
        assert len(self.owed) == len(self.results)
        assert all(
            ((job, fence, 9) in self.owed) == ((job, fence, 9) in self.results) for job in range(6) for fence in (1, 2)
        )

    def teardown(self) -> None:
        """Nothing that is owed is lost: a new stream is offered all of it, in order."""
        for ref in sorted(self.held_back):
            self.release(ref)
        self.offer_again()
        sent = []
        while (message := self.owed.take(2, 1 << 20)) is not None:
            sent += results_in(message)
        assert sent == list(self.results.values())

    def _forget(self, ref: Ref) -> None:
        self.results.pop(ref, None)
        self.held_back.discard(ref)
        self.noops.discard(ref)
        self.ready = [each for each in self.ready if each != ref]


TestOwed = OwedMachine.TestCase
TestOwed.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize(
    "kind", [each.name for each in pb.ServerMessage.DESCRIPTOR.fields if each.name != "result_acks"]
)
def test_another_message_acknowledges_nothing(kind: str) -> None:
    owed = Owed()
    owed.add((1, 1, 1), b"")
    message = pb.ServerMessage()
    getattr(message, kind).SetInParent()

    assert owed.acknowledge(message.SerializeToString()) is None
    assert owed.acknowledge(b"") is None
    assert owed.attempts() == [(1, 1, 1)]


def test_ten_thousand_are_sent_in_their_order_and_acknowledged_in_any() -> None:
    owed = Owed()
    jobs = [
        pb.Assignment(attempt=pb.AttemptRef(job_id=number, fence=1, token=1), type="noop") for number in range(10_000)
    ]
    owed.add_noops(assigned(jobs, apart=True), 1)

    sent = []
    while (message := owed.take(1000, 1 << 20)) is not None:
        sent += [attempt_in(result.attempt) for result in results_in(message)]

    assert sent == [(number, 1, 1) for number in range(10_000)]
    assert owed.acknowledge(acks_of([(job.attempt, Verdict.VERDICT_ACCEPTED) for job in reversed(jobs)])) == []
    assert len(owed) == 0
