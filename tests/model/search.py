"""The search: every world that can be reached, breadth first, so that the first failure found is the shortest.

Workers are interchangeable, and so are servers: of worlds that differ only by their names, one is visited.
"""

import gc
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, pairwise

from orqestra.model.lifecycle import RunState
from tests.model import faults, invariants, server, worker
from tests.model.guards import Rules, new_job
from tests.model.tidy import Names, tidy
from tests.model.words import Closed, Invariant, Left, Move, Run, Server, Session, Worker, World


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The shortest way to break an invariant: one line for each move, and what the rows are after it."""

    invariant: Invariant
    lines: tuple[str, ...]

    def __str__(self) -> str:
        numbered = (f"{number:3}  {line}" for number, line in enumerate(self.lines, 1))
        return "\n".join((self.invariant, *numbered))


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search has seen. `failure` is None if everything held everywhere; `texts` are those of all moves."""

    states: int
    transitions: int
    depth: int
    texts: frozenset[str]
    failure: Failure | None


def start(rules: Rules) -> World:
    """Return the world before anything has happened: a job that waits, a worker at each server."""
    workers = tuple(
        Worker(True, 1, server, True, True, 1, (), (), (), (Session(1, server, Closed.OPEN, True, False, True),))
        for server in (0, 1)
    )
    return World(
        jobs=(new_job(),),
        run=(Run(RunState.RUNNING, False),) if rules.steps > 1 else (),
        workers=workers,
        servers=(Server(), Server()),
        left=Left(rules.faults, rules.cancels, rules.retries),
    )


def moves(world: World, rules: Rules) -> Iterator[Move]:
    """Yield everything that may happen next."""
    return chain(server.moves(world, rules), worker.moves(world, rules), faults.moves(world, rules))


def explore(rules: Rules, wanted: Invariant | None = None) -> Found:
    """Visit everything within the bounds, or stop at the first failure; if one is `wanted`, at the first of that."""
    with _no_collector():
        return Search(rules, wanted).run()


class Search:
    """One search; `worlds` in the order of their discovery, `parents` the world that each was found from."""

    def __init__(self, rules: Rules, wanted: Invariant | None = None) -> None:
        self._rules = rules
        self._wanted = tuple(Invariant) if wanted is None else (wanted,)
        self._worlds: list[World] = []
        self._parents = array("l")
        self._known: dict[World, int] = {}
        self._fair_from = array("l")
        self._fair_to = array("l")
        self._transitions = 0
        self._texts: set[str] = set()
        self._depth = 0

    def run(self) -> Found:
        """Visit everything; then look whether the end can be reached from everywhere."""
        self._note(tidy(start(self._rules))[0], -1)
        layer_end, at = 1, 0
        while at < len(self._worlds):
            if at == layer_end:
                layer_end, self._depth = len(self._worlds), self._depth + 1
            world = self._worlds[at]
            for move in moves(world, self._rules):
                self._transitions += 1
                self._texts.add(move.text)
                if (found := invariants.broken(world, move)) in self._wanted and found is not None:
                    return self._found(Failure(invariant=found, lines=self._story(at, move)))
                to = self._place(move.after, at)
                if move.fair and to != at:
                    self._fair_from.append(at)
                    self._fair_to.append(to)
            at += 1
        return self._found(self._unending())

    def _found(self, failure: Failure | None) -> Found:
        return Found(
            states=len(self._worlds),
            transitions=self._transitions,
            depth=self._depth,
            texts=frozenset(self._texts),
            failure=failure,
        )

    def _place(self, raw: World, parent: int) -> int:
        """Return the number of a world; raw ones are remembered too, since tidying is dear."""
        known = self._known.get(raw)
        if known is not None:
            return known
        tidied, _ = tidy(raw)
        known = self._known.get(tidied)
        if known is None:
            known = self._note(tidied, parent)
        self._known[raw] = known
        return known

    def _note(self, world: World, parent: int) -> int:
        number = len(self._worlds)
        self._known[world] = number
        self._worlds.append(world)
        self._parents.append(parent)
        return number

    def _unending(self) -> Failure | None:
        """Walk back from all ends along fair moves; where that does not lead, nothing ends any more."""
        before: list[list[int]] = [[] for _ in self._worlds]
        for source, target in zip(self._fair_from, self._fair_to, strict=True):
            before[target].append(source)
        waiting = [number for number, world in enumerate(self._worlds) if server.is_over(world)]
        ending = bytearray(len(self._worlds))
        for number in waiting:
            ending[number] = True
        while waiting:
            for source in before[waiting.pop()]:
                if not ending[source]:
                    ending[source] = True
                    waiting.append(source)
        stuck = ending.find(0)
        return None if stuck < 0 else Failure(invariant=Invariant.ENDING, lines=self._story(stuck, None))

    def _story(self, at: int, last: Move | None) -> tuple[str, ...]:
        """Tell how a world came about, worker and server called by the same names all through."""
        path = [at]
        while self._parents[path[-1]] >= 0:
            path.append(self._parents[path[-1]])
        path.reverse()
        names, lines = Names(), []
        for here, there in pairwise(path):
            move, renamed = self._step(here, there)
            lines.append(names.line(move))
            names = names.then(renamed)
        if last is not None:
            lines.append(names.line(last))
        return tuple(lines)

    def _step(self, here: int, there: int) -> tuple[Move, Names]:
        for move in moves(self._worlds[here], self._rules):
            tidied, renamed = tidy(move.after)
            if tidied == self._worlds[there]:
                return move, renamed
        raise AssertionError("a world without the move that led to it")


@contextmanager
def _no_collector() -> Iterator[None]:
    """Tuples of tuples have no cycles: looking for some in a million of them takes half of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
