"""What goes wrong, each at the cost of one of the faults that are left, and what people want."""

from collections.abc import Iterator
from itertools import chain

from orqestra.model.lifecycle import TERMINAL, Event, RunState, State, step
from tests.model import guards
from tests.model.change import (
    current_session,
    end_served,
    is_connected,
    linger,
    served,
    session_at,
    with_job,
    with_server,
    with_session,
    with_worker,
    without_stream,
)
from tests.model.flaws import Flaw
from tests.model.guards import Rules
from tests.model.words import (
    Act,
    Closed,
    Deed,
    Held,
    Kind,
    Message,
    Move,
    Phase,
    Place,
    Server,
    Session,
    Worker,
    World,
)


def moves(world: World, rules: Rules) -> Iterator[Move]:
    """Yield faults, people's wishes, and how time passes."""
    yield from chain(_people(world, rules), _time(world), _losses(world), _restarts(world))
    if world.left.faults:
        spent = world._replace(left=world.left._replace(faults=world.left.faults - 1))
        for fault in chain(_breaks(spent), _crashes(spent), _refusals(spent), _slowness(spent, rules)):
            yield fault._replace(fair=False)


def _people(world: World, rules: Rules) -> Iterator[Move]:
    """`cancel_jobs`, `request_run_cancels`, `retry_job`, at any time."""
    left = world.left
    if left.cancels:
        wished = world._replace(left=left._replace(cancels=left.cancels - 1))
        if world.run and world.run[0].state is RunState.RUNNING and not world.run[0].cancel:
            yield Move("someone cancels the run", _cancelled_run(wished, rules), False)
        for number, job in enumerate(world.jobs):
            if guards.is_cancellable(job, rules) and not job.cancel:
                yield Move("someone cancels the job", _cancelled(wished, number), False)
    if left.retries:
        wished = world._replace(left=left._replace(retries=left.retries - 1))
        for number, job in enumerate(world.jobs):
            after = step(job.state, Event.RETRIED)
            if after is None or (world.run and world.run[0].state is RunState.CANCELLED):
                continue
            retried = with_job(wished, number, job._replace(state=after, attempt=0, cancel=False))
            if world.run:
                retried = retried._replace(run=(world.run[0]._replace(state=RunState.RUNNING),))
            yield Move("an operator retries the job", retried, False, deed=Deed(Act.RETRY, job.last))


def _cancelled(world: World, number: int) -> World:
    after = with_job(world, number, guards.after_cancel(world.jobs[number]))
    if after.run and after.jobs[number].state is State.CANCELLED and after.run[0].state is RunState.RUNNING:
        after = after._replace(run=(after.run[0]._replace(state=RunState.CANCELLED),))
    return after


def _cancelled_run(world: World, rules: Rules) -> World:
    world = world._replace(run=(world.run[0]._replace(cancel=True),))
    for number, job in enumerate(world.jobs):
        if job.state not in TERMINAL and guards.is_cancellable(job, rules):
            world = _cancelled(world, number)
    return world


def _time(world: World) -> Iterator[Move]:
    """Leases of sessions that nobody renews run out."""
    for index, worker in enumerate(world.workers):
        for session in worker.sessions:
            if session.closed is Closed.OPEN and session.lease:
                is_current = worker.alive and worker.stream == session.number
                if not is_current or (not worker.sure and (worker.welcomed or not session.served)):
                    yield _lapsed(world, index, worker, session)


def _slowness(world: World, rules: Rules) -> Iterator[Move]:
    """Beats are late: first the worker is no longer sure, and only then may the lease be over.

    That order is what `worker.lease` is for: it counts nine tenths, from before the beat was sent.
    """
    for index, worker in enumerate(world.workers):
        session = current_session(worker)
        if session is None or not session.served:
            continue
        if worker.sure:
            after = with_worker(world, index, worker._replace(sure=False))
            yield Move("worker {worker} is not sure of its lease any more", after, False, index)
            if rules.is_(Flaw.FORGOTTEN_RENEWAL) and session.closed is Closed.OPEN and session.lease:
                yield _lapsed(world, index, worker, session)
        elif not worker.welcomed and session.closed is Closed.OPEN and session.lease:
            yield _lapsed(world, index, worker, session)


def _lapsed(world: World, index: int, worker: Worker, session: Session) -> Move:
    after = with_worker(world, index, with_session(worker, session._replace(lease=False)))
    return Move("the lease of worker {worker} is over", after, True, index)


def _losses(world: World) -> Iterator[Move]:
    """What is late is lost, unless it waits in the memory of a server that still serves its stream."""
    for index, server in enumerate(world.servers):
        for at, (place, _) in enumerate(server.late):
            session = session_at(world, place)
            if session is not None and session.served and world.workers[place.worker].stream == place.number:
                continue
            after = with_server(world, index, server._replace(late=server.late[:at] + server.late[at + 1 :]))
            yield Move("what came late to server {server} is lost", after, False, 0, index)


def _breaks(world: World) -> Iterator[Move]:
    """A stream breaks, which the worker sees first, or the server."""
    for index, worker in enumerate(world.workers):
        if worker.stream:
            place = Place(index, worker.stream)
            after = linger(with_worker(world, index, without_stream(worker)), worker.server, place, worker.up)
            yield Move("worker {worker} gives its stream up", after, False, index)
    for index, worker, session in served(world):
        if worker.stream == session.number and session.closed is Closed.OPEN:
            after = end_served(world, Place(index, session.number))
            yield Move("server {server} gives the stream of worker {worker} up", after, False, index, session.server)


def _crashes(world: World) -> Iterator[Move]:
    """A worker dies and leaves its spool, or its host is lost with it; a server dies and another takes its place."""
    for index, worker in enumerate(world.workers):
        if worker.alive and world.workers[1 - index].alive:
            spool = tuple(each for each in worker.held if each.phase >= Phase.SUCCEEDED)
            yield Move("worker {worker} dies", _dead(world, index, spool), False, index)
            if spool:
                yield Move("the host of worker {worker} is lost", _dead(world, index, ()), False, index)
    for index in range(len(world.servers)):
        if _is_used(world, index):
            yield Move("server {server} dies, and is started again", _without_server(world, index), False, 0, index)
    for index, server in enumerate(world.servers):
        for claim in server.claims:
            session = session_at(world, claim.place)
            if claim.heard and session is not None:
                unheard = with_server(world, index, server._replace(claims=(claim._replace(heard=False),)))
                after = end_served(unheard, claim.place) if session.served else unheard
                yield Move("server {server} will not hear what became of its claim", after, False, 0, index)


def _dead(world: World, index: int, spool: tuple[Held, ...]) -> World:
    """The commands die with it; what it had sent may still arrive."""
    worker = world.workers[index]
    world = linger(world, worker.server, Place(index, worker.stream), worker.up)
    sessions = tuple(each._replace(old=True) for each in worker.sessions)
    dead = without_stream(worker)._replace(alive=False, held=_unsent(spool), sessions=sessions)
    servers = tuple(_with_old_hellos(server, index) for server in world.servers)
    return with_worker(world._replace(servers=servers), index, dead)


def _unsent(spool: tuple[Held, ...]) -> tuple[Held, ...]:
    return tuple(each._replace(sent=False) for each in spool)


def _with_old_hellos(server: Server, index: int) -> Server:
    late = tuple(
        each._replace(message=each.message._replace(old=True))
        if each.place.worker == index and each.message.kind is Kind.HELLO
        else each
        for each in server.late
    )
    return server._replace(late=late)


def _is_used(world: World, index: int) -> bool:
    """Return whether anything would be lost with this server."""
    if world.servers[index] != Server():
        return True
    return any(worker.stream and worker.server == index for worker in world.workers)


def _without_server(world: World, index: int) -> World:
    """All that it had under way is gone, but for the statements that Postgres is still busy with."""
    claims = tuple(claim._replace(heard=False) for claim in world.servers[index].claims)
    workers = []
    for worker in world.workers:
        sessions = tuple(each._replace(served=each.served and each.server != index) for each in worker.sessions)
        lost = worker.stream and worker.server == index
        workers.append(worker._replace(sessions=sessions, up=() if lost else worker.up))
    return with_server(world._replace(workers=tuple(workers)), index, Server(claims=claims))


def _restarts(world: World) -> Iterator[Move]:
    """A dead worker is started again. Nobody may count on it: the others must do without."""
    for index, worker in enumerate(world.workers):
        if not worker.alive:
            after = with_worker(world, index, worker._replace(alive=True))
            yield Move("worker {worker} is started again", after, False, index)


def _refusals(world: World) -> Iterator[Move]:
    """A worker hands back what waits; nobody answers that."""
    for index, worker in enumerate(world.workers):
        for held in worker.held:
            if held.phase is Phase.WAITING and is_connected(worker):
                kept = tuple(each for each in worker.held if each is not held)
                nack = Message(Kind.RESULT, held.attempt, Phase.RETURNED)
                after = with_worker(world, index, worker._replace(held=kept, up=(*worker.up, nack)))
                yield Move("worker {worker} hands back what waits", after, False, index)
