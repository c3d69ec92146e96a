"""What a peer is and how it is run, as its folder under `programs/` declares it, and who enters with it."""

import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, Self

PROGRAMS: Final = Path(__file__).resolve().parent / "programs"
DESCRIPTION: Final = "peer.toml"
REQUIREMENT: Final = re.compile(r"(?P<package>[a-z0-9-]+)(\[[a-z,]+\])?==(?P<version>[0-9][0-9a-z.]*)")


class Language(StrEnum):
    """What a peer is written in, and so how it is installed."""

    NODE = "node"
    PYTHON = "python"


class StoreKind(StrEnum):
    """Where a peer keeps its jobs."""

    POSTGRES = "postgres"
    REDIS = "redis"


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A job queue to compare with, in its best mode.

    Its folder has the pinned packages, the program, and the question to its store how many jobs have not
    finished. `worker` is started `starts` times, so that two processes work in all; `jobs` is how many it
    gets in a round, fewer if it is slow. `durability` and `settings` are notes for the reader.
    """

    name: str
    language: Language
    package: str
    store: StoreKind
    jobs: int
    worker: tuple[str, ...]
    starts: int
    prepares: bool
    durability: str
    settings: str
    directory: Path

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Return the peer that a folder declares."""
        document = tomllib.loads((directory / DESCRIPTION).read_text())
        return cls(
            **document
            | {
                "language": Language(document["language"]),
                "store": StoreKind(document["store"]),
                "worker": tuple(document["worker"]),
                "directory": directory,
            }
        )

    @property
    def key(self) -> str:
        """Its name among folders and on the command line."""
        return self.directory.name

    @property
    def program(self) -> tuple[str, ...]:
        """How its program is started; a verb follows."""
        return ("node", "program.mjs") if self.language is Language.NODE else ("python", "program.py")

    @property
    def pins(self) -> Path:
        """The file that names its packages."""
        return self.directory / ("package.json" if self.language is Language.NODE else "requirements.txt")

    @property
    def version(self) -> str:
        """The version that is pinned."""
        return pinned_versions(self)[self.package]

    @property
    def unfinished(self) -> str:
        """The SQL or Lua that returns how many jobs have not finished."""
        suffix = "sql" if self.store is StoreKind.POSTGRES else "lua"
        return (self.directory / f"unfinished.{suffix}").read_text()


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """A peer in one mode of its store: Redis as it comes, or one that syncs every write to the disk."""

    peer: Peer
    syncs_redis: bool = False

    @property
    def name(self) -> str:
        """What it is called in tables."""
        return f"{self.peer.name}, AOF always" if self.syncs_redis else self.peer.name

    @property
    def is_durable(self) -> bool:
        """Whether a job that was submitted survives a kill -9 of the store."""
        return self.peer.store is StoreKind.POSTGRES or self.syncs_redis


def pinned_versions(peer: Peer) -> dict[str, str]:
    """Return all packages that the folder names, with their versions; raises ValueError if one has none."""
    text = peer.pins.read_text()
    if peer.language is Language.NODE:
        return dict(json.loads(text)["dependencies"])
    found = [REQUIREMENT.fullmatch(line) for line in text.splitlines()]
    if None in found:
        raise ValueError(f"{peer.pins.name} of {peer.key} has a line that is not PACKAGE==VERSION")
    return {match["package"]: match["version"] for match in found if match}


def all_peers() -> list[Peer]:
    """Return every peer, by folder."""
    return [Peer.read(path.parent) for path in sorted(PROGRAMS.glob(f"*/{DESCRIPTION}"))]


def entrants(peers: Sequence[Peer]) -> Iterator[Entrant]:
    """Yield who competes: each peer, and those on Redis a second time with a Redis that is durable."""
    for peer in peers:
        yield Entrant(peer=peer)
        if peer.store is StoreKind.REDIS:
            yield Entrant(peer=peer, syncs_redis=True)
