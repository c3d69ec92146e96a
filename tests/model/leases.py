"""Leases: renewed, over, closed, swept; and what servers notice of streams that are over."""

from collections.abc import Iterator
from itertools import chain

from orqestra.model.decision import Ending
from orqestra.model.lifecycle import State
from tests.model import guards
from tests.model.change import (
    current_session,
    end_served,
    served,
    session_at,
    with_server,
    with_session,
    with_worker,
)
from tests.model.flaws import Flaw
from tests.model.guards import Rules
from tests.model.settlement import settled
from tests.model.words import (
    Act,
    Closed,
    Deed,
    Move,
    Orphan,
    Place,
    World,
)


def moves(world: World, rules: Rules) -> Iterator[Move]:
    """Yield what renewal, expiry and the ends of streams may do next."""
    return chain(_beats(world, rules), _endings(world, rules), _closes(world, rules), _sweeps(world, rules))


def _beats(world: World, rules: Rules) -> Iterator[Move]:
    """`Leases`: renew, then answer the beat. The order of the clocks is in `faults`: see `_lapses` there."""
    for index, worker in enumerate(world.workers):
        session = current_session(worker)
        if session is None or not session.served or not worker.welcomed:
            continue
        if guards.may_renew(session) and not (session.lease and worker.sure):
            renewed = with_session(worker, session._replace(lease=True))._replace(sure=True)
            after = with_worker(world, index, renewed)
            yield Move("server {server} renews the lease of worker {worker}", after, True, index, session.server)
        if rules.is_(Flaw.BEAT_BEFORE_RENEWAL) and not worker.sure:
            after = with_worker(world, index, worker._replace(sure=True))
            yield Move("server {server} answers a beat of worker {worker}", after, True, index, session.server)


def _endings(world: World, rules: Rules) -> Iterator[Move]:
    """Servers notice that a stream is over, or that it is closed in Postgres (`renew_sessions`)."""
    for index, worker, session in served(world):
        place = Place(index, session.number)
        if worker.stream != session.number or session.closed is not Closed.OPEN:
            after = end_served(world, place)
            if rules.is_(Flaw.RETURN_AT_DISCONNECT):
                yield from _returned(after, place, rules)
            yield Move("server {server} ends a stream of worker {worker}", after, True, index, session.server)
    for index, worker in enumerate(world.workers):
        for session in worker.sessions:
            if session.closed is Closed.OPEN and not session.served and not _runs(world, Place(index, session.number)):
                ended = with_session(worker, session._replace(closed=Closed.ENDED))
                after = with_worker(world, index, ended)
                text = "server {server} closes the ended session of worker {worker}, on which nothing runs"
                yield Move(text, after, True, index, session.server)


def _returned(world: World, place: Place, rules: Rules) -> Iterator[Move]:
    for number, job in enumerate(world.jobs):
        if job.state is State.RUNNING and job.place == place:
            deed = Deed(Act.SWEEP, job.last, place, Closed.ENDED)
            after = settled(world, number, Ending.RETURNED, 0, rules)
            yield Move(
                "a server gives back what ran on a stream of worker {worker}", after, True, place.worker, 0, deed
            )


def _runs(world: World, place: Place) -> bool:
    return any(job.state is State.RUNNING and job.place == place for job in world.jobs)


def _closes(world: World, rules: Rules) -> Iterator[Move]:
    """`close_lapsed`, by any server."""
    for index, worker in enumerate(world.workers):
        for session in worker.sessions:
            if guards.may_close(session, rules):
                after = with_worker(world, index, with_session(worker, session._replace(closed=Closed.LAPSED)))
                yield Move("a server closes the lapsed session of worker {worker}", after, True, index)


def _sweeps(world: World, rules: Rules) -> Iterator[Move]:
    """`find_orphans`, without locks; then each of them is settled, guarded again. One at a time."""
    for index, server in enumerate(world.servers):
        for orphan in server.orphans:
            yield _swept(with_server(world, index, server._replace(orphans=())), index, orphan, rules)
    if any(server.orphans for server in world.servers):
        return
    for job in world.jobs:
        session = session_at(world, job.place) if job.state is State.RUNNING else None
        if session is None or not guards.is_swept(session, rules):
            continue
        # Swept while its lease is over and nothing else, an open session counts as lapsed.
        orphans = (Orphan(job.last, job.place, session.closed or Closed.LAPSED),)
        for index, server in enumerate(world.servers if rules.is_deep else world.servers[:1]):
            after = with_server(world, index, server._replace(orphans=orphans))
            yield Move("server {server} reads an orphan of worker {worker}", after, True, job.place.worker, index)


def _swept(world: World, index: int, orphan: Orphan, rules: Rules) -> Move:
    job = world.jobs[orphan.attempt.job]
    where = orphan.place.worker
    if not guards.is_orphan(job, orphan.attempt, orphan.place, rules):
        return Move("server {server} finds nothing left to sweep of worker {worker}", world, True, where, index)
    ending = Ending.LOST if orphan.closed in {Closed.LAPSED, Closed.RESTARTED} else Ending.RETURNED
    after = settled(world, orphan.attempt.job, ending, index, rules)
    deed = Deed(Act.SWEEP, orphan.attempt, orphan.place, orphan.closed)
    return Move(f"server {{server}} sweeps the orphan of worker {{worker}}: {ending}", after, True, where, index, deed)
