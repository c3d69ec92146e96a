"""What workers do: connect, take what the server sends, start, end, report."""

from collections.abc import Iterator
from itertools import chain
from typing import Final

from tests.model.change import current_session, hello, with_worker, without_stream
from tests.model.flaws import Flaw
from tests.model.guards import Rules
from tests.model.words import (
    Act,
    Attempt,
    Deed,
    Held,
    Kind,
    Message,
    Move,
    Phase,
    Worker,
    World,
)

ENDS: Final = ((Phase.SUCCEEDED, "succeeds"), (Phase.FAILED, "fails"))


def moves(world: World, rules: Rules) -> Iterator[Move]:
    """Yield what the workers may do next."""
    for index, worker in enumerate(world.workers):
        if worker.alive:
            yield from chain(
                _streams(world, index, worker, rules),
                _messages(world, index, worker, rules),
                _commands(world, index, worker, rules),
                _cancels(world, index, worker),
            )


def _streams(world: World, index: int, worker: Worker, rules: Rules) -> Iterator[Move]:
    """`Connection`: a stream whenever there is none; its Hello says what is held, results too."""
    if not worker.stream:
        held = worker.held
        if rules.is_(Flaw.RESUME_IGNORES_FINISHED):
            held = tuple(each for each in held if each.phase < Phase.SUCCEEDED)
        number = worker.number + 1
        for server in range(len(world.servers)) if rules.is_deep else (1 - worker.server,):
            greeting = worker._replace(stream=number, server=server, number=number, up=(hello(worker, held),))
            after = with_worker(world, index, greeting)
            yield Move("worker {worker} says Hello to server {server}", after, True, index, server)
        return
    session = current_session(worker)
    said_hello = any(message.kind is Kind.HELLO for message in worker.up)
    if not said_hello and (session is None or not session.served):
        after = with_worker(world, index, without_stream(worker))
        yield Move("worker {worker} sees the end of its stream", after, True, index)


def _messages(world: World, index: int, worker: Worker, rules: Rules) -> Iterator[Move]:
    """`Stream._handle`: what has come, in its order."""
    if not worker.down:
        return
    message = worker.down[0]
    read = worker._replace(down=worker.down[1:])
    match message.kind:
        case Kind.WELCOME:
            after = with_worker(world, index, _welcomed(read, message, rules))
            yield Move("worker {worker} reads Welcome", after, True, index, worker.server)
        case Kind.ASSIGN:
            after = with_worker(world, index, _accepted(read, message.attempt))
            yield Move("worker {worker} reads Assign", after, True, index, worker.server)
        case Kind.ACK:
            kept = tuple(each for each in worker.held if each.attempt != message.attempt)
            after = with_worker(world, index, read._replace(held=kept))
            deed = Deed(Act.FORGET, message.attempt)
            yield Move("worker {worker} reads the answer and forgets the result", after, True, index, 0, deed)


def _welcomed(worker: Worker, message: Message, rules: Rules) -> Worker:
    """Kill what is revoked. The lease counts from before Hello was sent: where it is over, it is not sure."""
    revoked = {each.attempt for each in message.held}
    held = tuple(each for each in worker.held if each.attempt not in revoked)
    session = current_session(worker)
    return worker._replace(welcomed=True, sure=session is not None and session.lease, held=held)


def _accepted(worker: Worker, attempt: Attempt) -> Worker:
    """`Jobs.accept`: an attempt that comes twice is one. What names it is all that the worker can compare."""
    if any(each.attempt[2:] == attempt[2:] and each.attempt.job == attempt.job for each in worker.held):
        return worker
    return worker._replace(held=(*worker.held, Held(attempt, Phase.WAITING, False)))


def _commands(world: World, index: int, worker: Worker, rules: Rules) -> Iterator[Move]:
    """`Jobs`: start what waits while the lease is sure, keep results until they are answered."""
    session = current_session(worker)
    can_send = worker.welcomed and session is not None and session.served
    for held in worker.held:
        if held.phase is Phase.WAITING:
            if worker.welcomed and (worker.sure or rules.is_(Flaw.START_WITHOUT_LEASE)):
                deed = Deed(Act.START, held.attempt)
                after = _now(world, index, worker, held, Phase.RUNNING)
                yield Move("worker {worker} starts the command", after, True, index, 0, deed)
        elif held.phase is Phase.RUNNING:
            for phase, text in ENDS[: 1 + rules.can_fail]:
                after = _now(world, index, worker, held, phase)
                yield Move(f"the command on worker {{worker}} {text}", after, True, index)
        elif can_send and not held.sent:
            sent = _replaced(worker, held, held._replace(sent=True))
            result = Message(Kind.RESULT, held.attempt, held.phase)
            after = with_worker(world, index, sent._replace(up=(*worker.up, result)))
            yield Move("worker {worker} sends the result", after, True, index, worker.server)


def _cancels(world: World, index: int, worker: Worker) -> Iterator[Move]:
    """`list_cancels` and the push: a Cancel of what is still held comes at some time, told again on each stream."""
    session = current_session(worker)
    if session is None or not session.served or not worker.welcomed:
        return
    for held in worker.held:
        job = world.jobs[held.attempt.job]
        names_it = job.cancel and job.last == held.attempt and job.place == (index, worker.stream)
        if names_it and held.phase < Phase.SUCCEEDED:
            after = _now(world, index, worker, held, Phase.FAILED)
            yield Move("worker {worker} reads Cancel and ends the command", after, True, index, worker.server)


def _now(world: World, index: int, worker: Worker, held: Held, phase: Phase) -> World:
    return with_worker(world, index, _replaced(worker, held, Held(held.attempt, phase, False)))


def _replaced(worker: Worker, held: Held, by: Held) -> Worker:
    return worker._replace(held=tuple(by if each is held else each for each in worker.held))
