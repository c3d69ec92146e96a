"""How servers settle: the result of an attempt, its decision, its answer, and the next step of its run."""

from collections.abc import Iterator

from orqestra.model.decision import Ending
from orqestra.model.report import Verdict
from tests.model import guards
from tests.model.change import (
    session_at,
    with_job,
    with_server,
    with_worker,
)
from tests.model.flaws import Flaw
from tests.model.guards import Rules
from tests.model.words import (
    Act,
    Deed,
    Kind,
    Late,
    Message,
    Move,
    Place,
    World,
)


def results(
    world: World, place: Place, index: int, message: Message, rules: Rules, *, again: bool = True
) -> Iterator[Move]:
    """`Settlement`: settle, commit, answer. With its outcome unknown it is run again: the first half is `again`."""
    answered = _answered(world, place, message)
    if rules.is_(Flaw.ACK_BEFORE_COMMIT) and again:
        server = world.servers[index]
        later = with_server(answered, index, server._replace(late=(*server.late, Late(place, message))))
        yield Move("server {server} answers worker {worker} before it commits", later, True, place.worker, index)
        return
    said = guards.verdict(world.jobs[message.attempt.job], message.attempt, place, rules)
    if said is None:
        yield Move("server {server} gives worker {worker} no answer yet", world, True, place.worker, index)
        return
    if said is not Verdict.ACCEPTED:
        yield Move(f"server {{server}} answers worker {{worker}}: {said}", answered, True, place.worker, index)
        return
    deed = Deed(Act.SETTLE, message.attempt, place)
    ending = guards.ENDINGS[message.phase]
    after = settled(answered, message.attempt.job, ending, index, rules)
    text = f"server {{server}} settles what worker {{worker}} reports, {ending}, and answers"
    yield Move(text, after, True, place.worker, index, deed)
    if world.left.faults and again:
        unknown = settled(_unread(world, place, message), message.attempt.job, ending, index, rules)
        text = f"server {{server}} settles what worker {{worker}} reports, {ending}, and loses the answer to COMMIT"
        yield Move(text, _faulty(unknown), False, place.worker, index, deed)


def _unread(world: World, place: Place, message: Message) -> World:
    worker = world.workers[place.worker]
    return with_worker(world, place.worker, worker._replace(up=(message, *worker.up)))


def _faulty(world: World) -> World:
    return world._replace(left=world.left._replace(faults=world.left.faults - 1))


def _answered(world: World, place: Place, message: Message) -> World:
    """The answer, if the stream that the result came on is still there on both sides."""
    worker = world.workers[place.worker]
    session = session_at(world, place)
    if session is None or not session.served or worker.stream != place.number:
        return world
    ack = Message(Kind.ACK, message.attempt)
    return with_worker(world, place.worker, worker._replace(down=(*worker.down, ack)))


def settled(world: World, number: int, ending: Ending, index: int, rules: Rules) -> World:
    """`settle_jobs` and, in the same transaction, `_advance`."""
    after = with_job(world, number, guards.after_ending(world.jobs[number], ending, rules.max_retries))
    if not world.run:
        return after
    if rules.is_(Flaw.ADVANCE_OUTSIDE_TX):
        server = after.servers[index]
        return with_server(after, index, server._replace(debts=(number,)))
    return _advanced(after, number)


def _advanced(world: World, number: int) -> World:
    run, jobs = guards.after_step(world.run[0], world.jobs, number)
    return world._replace(run=(run,), jobs=jobs)


def advances(world: World, rules: Rules) -> Iterator[Move]:
    if rules.is_(Flaw.ADVANCE_OUTSIDE_TX):
        for index, server in enumerate(world.servers):
            for number in server.debts:
                after = _advanced(with_server(world, index, server._replace(debts=())), number)
                yield Move("server {server} inserts the next step", after, True, 0, index)
