"""Who takes part, in turns: a round of everybody, then the next round, so that a slow moment hits all alike."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import asyncpg
import redis.exceptions

import orqestra
from benchmarks.peers import contest, ours
from benchmarks.peers.contest import RoundFailed
from benchmarks.peers.environment import NotInstalled, install
from benchmarks.peers.peer import Entrant, Peer, entrants
from benchmarks.peers.report import Figures, Line
from orqestra.bench import load
from orqestra.model.errors import OrqestraError

# What may befall a round; the others go on.
FAILURES: Final = (RoundFailed, OrqestraError, OSError, asyncpg.PostgresError, redis.exceptions.RedisError)

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """The line of the report before the first round, and what measures a round; None for who can't take part."""

    line: Line
    measure: Callable[[], Awaitable[Figures]] | None


async def compete(peers: Sequence[Peer], rounds: int, cache: Path, say: Say) -> list[Line]:
    """Install the peers and have Orqestra and all of them run so many rounds; return who could not too."""
    reasons = {peer.key: await _install(peer, cache, say) for peer in peers}
    contestants = [*_ourselves(), *_theirs(peers, reasons, cache)]
    lines = [contestant.line for contestant in contestants]
    for number in range(1, rounds + 1):
        for index, contestant in enumerate(contestants):
            if contestant.measure is not None:
                lines[index] = await _round(lines[index], contestant.measure)
                say(f"round {number} of {rounds}: {_told(lines[index])}")
    return lines


def line_of(entrant: Entrant) -> Line:
    """Return the empty line of a peer in one mode."""
    peer = entrant.peer
    return Line(
        name=entrant.name,
        version=peer.version,
        store=peer.store,
        durable=entrant.is_durable,
        settings=peer.settings,
        notes=peer.durability,
        jobs=peer.jobs,
    )


async def _install(peer: Peer, cache: Path, say: Say) -> str | None:
    """Return why a peer can't take part; None if it can."""
    say(f"{peer.name} {peer.version}: installing what is not there yet")
    try:
        await install(peer, cache)
    except NotInstalled as error:
        say(f"{peer.name} is skipped: {error}")
        return str(error)
    return None


def _theirs(peers: Sequence[Peer], reasons: dict[str, str | None], cache: Path) -> Iterator[Contestant]:
    for entrant in entrants(peers):
        reason = reasons[entrant.peer.key]
        yield Contestant(
            line=replace(line_of(entrant), skipped=reason),
            measure=partial(contest.measure, entrant, cache) if reason is None else None,
        )


def _ourselves() -> Iterator[Contestant]:
    """Yield what is compared, all settings as they are by default, and workers that may take as much as peers' do."""
    submits = f"submit_many by {load.BATCH_JOBS} from {load.CALLERS} callers"
    line = Line(
        name="Orqestra",
        version=orqestra.__version__,
        store="postgres, redis",
        durable=True,
        settings=f"none, {submits}",
        notes="committed in Postgres; a job that has ended stays; a worker that dies is noticed within 17 s",
        jobs=ours.JOBS,
        is_ours=True,
    )
    yield Contestant(line=line, measure=ours.measure)
    many = replace(line, name="Orqestra, many slots", settings=f"{ours.MANY_SLOTS} slots a worker, {submits}")
    yield Contestant(line=many, measure=partial(ours.measure, ours.MANY_SLOTS))


async def _round(line: Line, measure: Callable[[], Awaitable[Figures]]) -> Line:
    """Run a round; return the line with it."""
    try:
        figures = await measure()
    except FAILURES as error:
        return replace(line, rounds=(*line.rounds, None), skipped=f"a round failed: {error}")
    return replace(line, rounds=(*line.rounds, figures))


def _told(line: Line) -> str:
    figures = line.rounds[-1]
    if figures is None:
        return f"{line.name}: {line.skipped}"
    end_to_end, drain = (line.jobs / seconds for seconds in (figures.seconds, figures.drain_seconds))
    return f"{line.name}: end to end {end_to_end:,.0f}, drain {drain:,.0f} jobs a second"
