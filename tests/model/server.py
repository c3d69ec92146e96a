"""What servers do: claim, and take what arrives. Each move is one commit."""

from collections.abc import Iterator
from itertools import chain

from orqestra.model.lifecycle import TERMINAL, RunState, State
from tests.model import guards, leases, settlement
from tests.model.change import (
    served,
    session_at,
    with_job,
    with_server,
    with_worker,
)
from tests.model.guards import Rules
from tests.model.words import (
    Act,
    Attempt,
    Claim,
    Closed,
    Deed,
    Held,
    Kind,
    Message,
    Move,
    Phase,
    Place,
    Session,
    World,
)


def moves(world: World, rules: Rules) -> Iterator[Move]:
    """Yield what the servers may do next."""
    return chain(
        _claims(world, rules),
        _arrivals(world, rules),
        _late_arrivals(world, rules),
        leases.moves(world, rules),
        settlement.advances(world, rules),
    )


def _claims(world: World, rules: Rules) -> Iterator[Move]:
    """`Claims.claim`: the session is read when the statement begins, the job is guarded when it commits."""
    for index, _, session in served(world):
        server = world.servers[session.server]
        if session.closed is Closed.OPEN and not server.claims:
            for number, job in enumerate(world.jobs):
                if guards.may_claim(job, rules):
                    claim = Claim(number, Place(index, session.number), True)
                    after = with_server(world, session.server, server._replace(claims=(claim,)))
                    yield Move("server {server} begins a claim for worker {worker}", after, True, index, session.server)
    for index, server in enumerate(world.servers):
        for claim in server.claims:
            after = with_server(world, index, server._replace(claims=()))
            yield _landed(after, index, claim, rules)
            if not claim.heard:
                yield Move("the claim of server {server} was never committed", after, True, 0, index)


def _landed(world: World, index: int, claim: Claim, rules: Rules) -> Move:
    job = world.jobs[claim.job]
    where = claim.place.worker
    if not guards.may_claim(job, rules):
        return Move("server {server} is refused its claim for worker {worker}", world, True, where, index)
    attempt = guards.next_attempt(job, claim.job, rules)
    claimed = job._replace(state=State.RUNNING, last=attempt, place=claim.place)
    after = _refused(with_job(world, claim.job, claimed), claim.job, rules)
    session = session_at(world, claim.place)
    text = "server {server} commits a claim for worker {worker}, which is not told"
    if claim.heard and session is not None and session.served:
        text = "server {server} commits a claim for worker {worker} and sends Assign"
        worker = world.workers[where]
        if worker.stream == claim.place.number:
            assign = Message(Kind.ASSIGN, attempt)
            after = with_worker(after, where, worker._replace(down=(*worker.down, assign)))
    return Move(text, after, True, where, index, Deed(Act.CLAIM, attempt, claim.place))


def _refused(world: World, number: int, rules: Rules) -> World:
    """A claim that has lost the race for the row is over at once: the others are slow for other reasons."""
    if rules.is_deep or guards.may_claim(world.jobs[number], rules):
        return world
    for index, server in enumerate(world.servers):
        if any(claim.job == number and claim.heard for claim in server.claims):
            world = with_server(world, index, server._replace(claims=()))
    return world


def _arrivals(world: World, rules: Rules) -> Iterator[Move]:
    """What has come on a living stream: Hello, or a result."""
    for index, worker in enumerate(world.workers):
        if not worker.up:
            continue
        message = worker.up[0]
        place = Place(index, worker.stream)
        after = with_worker(world, index, worker._replace(up=worker.up[1:]))
        if message.kind is Kind.HELLO:
            yield _hello(after, place, worker.server, message, rules)
        else:
            yield from settlement.results(after, place, worker.server, message, rules)


def _late_arrivals(world: World, rules: Rules) -> Iterator[Move]:
    """What a stream had brought before it ended: in any order, since each was a stream of its own."""
    for index, server in enumerate(world.servers):
        for at, (place, message) in enumerate(server.late):
            after = with_server(world, index, server._replace(late=server.late[:at] + server.late[at + 1 :]))
            if message.kind is Kind.HELLO:
                yield _hello(after, place, index, message, rules)
            else:
                yield from settlement.results(after, place, index, message, rules, again=False)


def _hello(world: World, place: Place, index: int, message: Message, rules: Rules) -> Move:
    """`Sessions.open`: one transaction. The worker may have left this stream meanwhile."""
    worker = world.workers[place.worker]
    newest = max((each.number for each in worker.sessions), default=0)
    if guards.is_outdated(place.number, newest, rules):
        return Move("server {server} refuses an old Hello of worker {worker}", world, True, place.worker, index)
    session = Session(place.number, index, Closed.OPEN, True, message.old, True)
    replaced = tuple(_replaced(each, message) for each in worker.sessions if each.number != place.number)
    moved = {
        number: held.attempt
        for held in message.held
        for number, job in enumerate(world.jobs)
        if number == held.attempt.job and guards.resumes(job, held, place.worker, rules)
    }
    revoked = tuple(
        each for each in message.held if each.phase < Phase.SUCCEEDED and each.attempt.job not in _jobs(moved, each)
    )
    for number in moved:
        world = with_job(world, number, world.jobs[number]._replace(place=place))
    down = worker.down
    if worker.stream == place.number:
        down = (*down, Message(Kind.WELCOME, held=revoked))
    # A server ends the older streams that it serves itself; the others are told by `renew_sessions`.
    kept = tuple(each._replace(served=each.served and each.server != index) for each in replaced)
    worker = worker._replace(down=down, sessions=(*kept, session))
    after = with_worker(world, place.worker, worker)
    return Move("server {server} opens a session for worker {worker}", after, True, place.worker, index)


def _jobs(moved: dict[int, Attempt], held: Held) -> tuple[int, ...]:
    """Return the jobs of which exactly this attempt was moved: `kept` names id and fence."""
    return tuple(number for number, attempt in moved.items() if attempt == held.attempt)


def _replaced(session: Session, message: Message) -> Session:
    """`replace_sessions`, for what is still open."""
    if session.closed is not Closed.OPEN:
        return session
    return session._replace(closed=Closed.REPLACED if session.old == message.old else Closed.RESTARTED)


def is_over(world: World) -> bool:
    """Return whether everything has ended and no living worker owes or does anything."""
    if any(job.state not in TERMINAL for job in world.jobs):
        return False
    if any(run.state is RunState.RUNNING for run in world.run):
        return False
    return not any(worker.alive and worker.held for worker in world.workers)
