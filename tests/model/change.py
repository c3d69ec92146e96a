"""Small changes of a world, each returning a new one."""

from collections.abc import Iterator
from typing import Final

from tests.model.words import (
    Closed,
    Held,
    Job,
    Kind,
    Late,
    Message,
    Place,
    Server,
    Session,
    Worker,
    World,
)

# Of one server: more are lost, which is a thing that may happen to them anyway.
LATE_MAX: Final = 1


def with_worker(world: World, index: int, worker: Worker) -> World:
    """Replace a worker."""
    workers = (worker, world.workers[1]) if index == 0 else (world.workers[0], worker)
    return world._replace(workers=workers)


def with_server(world: World, index: int, server: Server) -> World:
    """Replace a server."""
    servers = (server, world.servers[1]) if index == 0 else (world.servers[0], server)
    return world._replace(servers=servers)


def with_job(world: World, number: int, job: Job) -> World:
    """Replace a job's row."""
    return world._replace(jobs=(*world.jobs[:number], job, *world.jobs[number + 1 :]))


def with_session(worker: Worker, session: Session) -> Worker:
    """Replace a session's row."""
    return worker._replace(
        sessions=tuple(session if each.number == session.number else each for each in worker.sessions)
    )


def session_at(world: World, place: Place) -> Session | None:
    """Return the session that a place names."""
    for session in world.workers[place.worker].sessions:
        if session.number == place.number:
            return session
    return None


def current_session(worker: Worker) -> Session | None:
    """Return the session of the worker's current stream; None before its Hello is stored, and without one."""
    for session in worker.sessions:
        if session.number == worker.stream:
            return session
    return None


def served(world: World) -> Iterator[tuple[int, Worker, Session]]:
    """Yield the sessions that servers serve, the worker may think otherwise."""
    for index, worker in enumerate(world.workers):
        for session in worker.sessions:
            if session.served:
                yield index, worker, session


def end_served(world: World, place: Place) -> World:
    """`Sessions.end`: the server forgets a stream. What the worker had sent may come late."""
    worker = world.workers[place.worker]
    session = session_at(world, place)
    assert session is not None
    worker = with_session(worker, session._replace(served=False))
    up: tuple[Message, ...] = ()
    if worker.stream == place.number:
        up, worker = worker.up, worker._replace(up=())
    return linger(with_worker(world, place.worker, worker), session.server, place, up)


def linger(world: World, index: int, place: Place, messages: tuple[Message, ...]) -> World:
    """Keep messages of a stream that is over: they may still arrive."""
    if not messages:
        return world
    server = world.servers[index]
    late = (*server.late, *(Late(place, message) for message in messages))[-LATE_MAX:]
    return with_server(world, index, server._replace(late=late))


def without_stream(worker: Worker) -> Worker:
    """`end_session` of the worker: what the old stream brought and was not read is never read."""
    held = tuple(each._replace(sent=False) for each in worker.held)
    return worker._replace(stream=0, welcomed=False, sure=False, held=held, up=(), down=())


def is_connected(worker: Worker) -> bool:
    """Return whether both sides use the worker's current stream and its session is open."""
    session = current_session(worker)
    return session is not None and session.served and worker.welcomed and session.closed is Closed.OPEN


def hello(worker: Worker, held: tuple[Held, ...]) -> Message:
    """Return the Hello of this worker."""
    named = tuple(Held(each.attempt, each.phase, False) for each in held)
    return Message(Kind.HELLO, held=named)
