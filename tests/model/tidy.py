"""One world for all that differ only by names: of workers, of servers, of sessions that nothing refers to."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from orqestra.model.lifecycle import State
from tests.model.words import Closed, Job, Kind, Move, Place, Server, Session, Worker, World

ONE: Final = frozenset({1})

Rename = Callable[[Place], Place]


@dataclass(frozen=True)
class Names:
    """What the workers and servers of a world were called at the beginning."""

    workers_swapped: bool = False
    servers_swapped: bool = False

    def then(self, other: "Names") -> "Names":
        """Return the names after another change of names."""
        return Names(self.workers_swapped != other.workers_swapped, self.servers_swapped != other.servers_swapped)

    def line(self, move: Move) -> str:
        """Return the move in the names of the beginning, and the rows after it."""
        text = move.text.format(
            worker="AB"[move.worker ^ self.workers_swapped], server="XY"[move.server ^ self.servers_swapped]
        )
        return (
            f"{text:<78} {' '.join(map(_row, move.after.jobs))} {''.join(run.state for run in move.after.run)}".rstrip()
        )


def tidy(world: World) -> tuple[World, Names]:
    """Return the world that stands for this one, and which names were exchanged."""
    world = _numbered(world)
    swap_servers = world.servers[0] > world.servers[1] or (
        world.servers[0] == world.servers[1] and _server_weight(world, 0) > _server_weight(world, 1)
    )
    if swap_servers:
        world = _servers_swapped(world)
    swap_workers = world.workers[0] > world.workers[1]
    if swap_workers:
        world = _workers_swapped(world)
    return world, Names(swap_workers, swap_servers)


def _row(job: Job) -> str:
    return f"[{job.state} fence={job.last.fence}{' cancel' if job.cancel else ''}]"


def _server_weight(world: World, index: int) -> list[bool]:
    flags = [worker.server == index and worker.stream > 0 for worker in world.workers]
    return sorted(flags) + [session.server == index for worker in world.workers for session in worker.sessions]


def _numbered(world: World) -> World:
    """Forget sessions that nothing refers to, and number the others from 1 on in their order."""
    named = _named(world)
    if all(map(_is_plain, world.workers, named)):
        return world
    workers, renames = list(world.workers), []
    is_changed = False
    for index, worker in enumerate(world.workers):
        referred = named[index]
        plain = [each if each.closed is Closed.OPEN else _plain(each, worker) for each in worker.sessions]
        kept = tuple(each for each in plain if each.served or each.number in referred)
        numbers = sorted(referred.union([worker.stream] if worker.stream else (), (each.number for each in kept)))
        renames.append({number: at for at, number in enumerate(numbers, 1)})
        if numbers and numbers[-1] != len(numbers):
            is_changed = True
            rename = renames[index]
            kept = tuple(each._replace(number=rename[each.number]) for each in kept)
        if kept != worker.sessions or worker.number != len(numbers):
            stream = renames[index].get(worker.stream, 0)
            workers[index] = worker._replace(stream=stream, number=len(numbers), sessions=kept)
    world = world._replace(workers=tuple(workers))
    if not is_changed:
        return world
    return _renamed(world, lambda place: Place(place.worker, renames[place.worker][place.number]))


def _is_plain(worker: Worker, named: set[int]) -> bool:
    """Return whether there is one session, number 1, and nothing to forget or to rename: mostly so."""
    if len(worker.sessions) != 1 or worker.number != 1 or worker.stream > 1:
        return False
    session = worker.sessions[0]
    is_needed = session.served or 1 in named
    return is_needed and session.closed is Closed.OPEN and session.number == 1 and named <= ONE


def _named(world: World) -> tuple[set[int], set[int]]:
    """Return the numbers of the sessions of each worker that something refers to."""
    named: tuple[set[int], set[int]] = (set(), set())
    for job in world.jobs:
        if job.state is State.RUNNING:
            named[job.place.worker].add(job.place.number)
    for server in world.servers:
        for place in (*(each.place for each in server.claims), *(each.place for each in server.orphans)):
            named[place.worker].add(place.number)
        for late in server.late:
            named[late.place.worker].add(late.place.number)
            if late.message.kind is Kind.HELLO:
                # The newest session is what refuses it.
                named[late.place.worker].update(each.number for each in world.workers[late.place.worker].sessions[-1:])
    return named


def _plain(session: Session, worker: Worker) -> Session:
    """Of a closed session nothing but the reason is ever read, once its stream is over."""
    is_served = session.served and session.number == worker.stream
    return session._replace(lease=False, old=False, served=is_served)


def _workers_swapped(world: World) -> World:
    swapped = world._replace(workers=world.workers[::-1])
    return _renamed(swapped, lambda place: Place(1 - place.worker, place.number))


def _servers_swapped(world: World) -> World:
    workers = tuple(
        worker._replace(
            server=1 - worker.server,
            sessions=tuple(each._replace(server=1 - each.server) for each in worker.sessions),
        )
        for worker in world.workers
    )
    return world._replace(workers=workers, servers=world.servers[::-1])


def _renamed(world: World, rename: Rename) -> World:
    jobs = tuple(job._replace(place=rename(job.place)) if job.state is State.RUNNING else job for job in world.jobs)
    return world._replace(jobs=jobs, servers=tuple(_renamed_server(server, rename) for server in world.servers))


def _renamed_server(server: Server, rename: Rename) -> Server:
    if server == Server():
        return server
    return server._replace(
        claims=tuple(each._replace(place=rename(each.place)) for each in server.claims),
        orphans=tuple(each._replace(place=rename(each.place)) for each in server.orphans),
        late=tuple(each._replace(place=rename(each.place)) for each in server.late),
    )
