"""The workflows that can be triggered: the files of one directory, read again when they change.

A file that is broken offers nothing, not even what it held before: what runs is what the directory says.
It never stops the rest. Of two files with the same workflow name the first in the order of the file names
counts; the other one is reported.

All methods that touch the disk block: call them by `asyncio.to_thread`. They may be called at once.
"""

import os
import stat
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from orqestra.clock import Clock
from orqestra.engine.definitions import declared_name, parse_definition
from orqestra.model import limits
from orqestra.model.errors import InvalidDefinition, NotFound
from orqestra.model.workflow import Definition

REFRESH_SECONDS: Final = 1.0
SUFFIXES: Final = (".yaml", ".yml")

# What changes when a file does: modified, changed, size, inode, device.
Fingerprint = tuple[int, int, int, int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Workflow:
    """A workflow that can be triggered; `file` is relative to the directory."""

    definition: Definition
    file: str


@dataclass(frozen=True, kw_only=True, slots=True)
class BrokenFile:
    """A file, or the directory itself, that could not be loaded; `line` 0 is the file as a whole.

    `name` is the name that the file seems to give its workflow, if it can be told.
    """

    file: str
    line: int
    problem: str
    name: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """All workflows by name, and all that could not be loaded, in the order of the file names."""

    workflows: Mapping[str, Workflow] = field(default_factory=dict)
    broken: tuple[BrokenFile, ...] = ()


class Catalog:
    """The workflows of a directory. A missing directory is reported as broken and looked for again."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        self.directory = directory
        self._clock = clock
        self._lock = threading.Lock()
        self._files: dict[str, _File] = {}
        self._listing = Listing()
        self._checked_at: float | None = None

    @property
    def listing(self) -> Listing:
        """What was read last; touches no disk."""
        return self._listing

    def load(self) -> Listing:
        """Read all files, changed or not. Blocks."""
        with self._lock:
            self._files = {}
            return self._read()

    def refresh(self) -> Listing:
        """Read the files that have changed, at most once in `REFRESH_SECONDS`. Blocks."""
        with self._lock:
            now = self._clock.monotonic()
            if self._checked_at is None or now - self._checked_at >= REFRESH_SECONDS:
                return self._read()
            return self._listing

    def get(self, name: str) -> Definition:
        """Return the definition of a workflow as its file says now. Blocks.

        Raises:
            InvalidDefinition: if the file of that workflow is broken, with what is wrong in it.
            NotFound: if there is no such workflow.
        """
        listing = self.refresh()
        if workflow := listing.workflows.get(name):
            return workflow.definition
        for broken in listing.broken:
            if name in (broken.name, Path(broken.file).stem):
                raise InvalidDefinition(broken.file, broken.line, broken.problem)
        raise NotFound("workflow", f"{name} in {self.directory}")

    def _read(self) -> Listing:
        self._checked_at = self._clock.monotonic()
        try:
            root = _resolved(self.directory)
            names = sorted(name for name in os.listdir(root) if _is_definition(name))
        except OSError as error:
            self._files = {}
            problem = f"cannot be read: {error.strerror}; WORKFLOWS_DIR names the directory of workflows"
            self._listing = Listing(broken=(BrokenFile(file=str(self.directory), line=0, problem=problem),))
            return self._listing
        self._files = {name: _current(root, name, self._files.get(name)) for name in names}
        self._listing = _listing(self._files.values())
        return self._listing


@dataclass(frozen=True, kw_only=True, slots=True)
class _File:
    """What one file held when it had this fingerprint; without one it is read again each time."""

    fingerprint: Fingerprint | None
    content: Workflow | BrokenFile
    name_line: int = 0


def _is_definition(name: str) -> bool:
    # Hidden files are those of editors and of mounted volumes.
    return name.endswith(SUFFIXES) and not name.startswith(".")


def _current(root: Path, name: str, known: _File | None) -> _File:
    """Return what a file holds, from `known` if it has not changed since."""
    path = root / name
    shown = os.fsencode(name).decode("utf-8", "replace")
    try:
        status = path.stat()
        fingerprint = _fingerprint(status)
        if known is not None and known.fingerprint == fingerprint:
            return known
        data = _read_file(root, path, status)
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
        return _File(fingerprint=None, content=BrokenFile(file=shown, line=0, problem=problem))
    content, name_line = _parsed(shown, data)
    return _File(fingerprint=fingerprint, content=content, name_line=name_line)


def _parsed(file: str, data: bytes) -> tuple[Workflow | BrokenFile, int]:
    name, name_line = declared_name(data)
    try:
        return Workflow(definition=parse_definition(file, data), file=file), name_line
    except InvalidDefinition as error:
        return BrokenFile(file=file, line=error.line, problem=error.problem, name=name), name_line


def _read_file(root: Path, path: Path, status: os.stat_result) -> bytes:
    """Return the bytes of a regular file inside `root`, one more than allowed at most."""
    real = _resolved(path)
    if not real.is_relative_to(root):
        raise OSError(0, "it is a link to a place outside of the directory")
    if not stat.S_ISREG(status.st_mode):
        raise OSError(0, "it is a directory" if stat.S_ISDIR(status.st_mode) else "it is not a regular file")
    # Neither a link nor a pipe that took the file's place meanwhile is followed or waited for.
    descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        return file.read(limits.DEFINITION_BYTES + 1)


def _resolved(path: Path) -> Path:
    # Path.resolve would raise RuntimeError for a loop of links.
    return Path(os.path.realpath(path, strict=True))


def _fingerprint(status: os.stat_result) -> Fingerprint:
    return (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_dev)


def _listing(files: Iterable[_File]) -> Listing:
    workflows: dict[str, Workflow] = {}
    broken: list[BrokenFile] = []
    for file in files:
        match file.content:
            case BrokenFile():
                broken.append(file.content)
            case Workflow(definition=definition) if definition.name in workflows:
                first = workflows[definition.name].file
                problem = f"the workflow name {definition.name} is taken by {first}"
                broken.append(BrokenFile(file=file.content.file, line=file.name_line, problem=problem))
            case Workflow(definition=definition):
                workflows[definition.name] = file.content
    return Listing(workflows=MappingProxyType(workflows), broken=tuple(broken))
