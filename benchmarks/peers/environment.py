"""A folder of its own for each peer: a copy of its program, and the packages that it pins."""

import asyncio
import hashlib
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.peers.peer import PROGRAMS, Language, Peer
from orqestra.embedded.process import Child, Program

INSTALL_SECONDS: Final = 300.0
MARK: Final = ".installed"
LOG: Final = "install.log"
# Ours would have Python peers find our packages, and Node's its debugger.
NOT_FOR_PEERS: Final = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "NODE_OPTIONS", "NODE_PATH")


class NotInstalled(Exception):
    """A peer can't take part; the text says why and tells nothing of the machine."""


def folder_of(peer: Peer, cache: Path) -> Path:
    """Return where the peer is run."""
    return cache / peer.key


def variables(peer: Peer, cache: Path) -> dict[str, str]:
    """Return the environment in which its commands are found, and no packages but its own."""
    folder = folder_of(peer, cache)
    commands = folder / ("venv/bin" if peer.language is Language.PYTHON else "node_modules/.bin")
    inherited = {name: value for name, value in os.environ.items() if name not in NOT_FOR_PEERS}
    return inherited | {"PATH": f"{commands}{os.pathsep}{os.environ['PATH']}", "NODE_ENV": "production"}


async def install(peer: Peer, cache: Path) -> None:
    """Have the peer's folder ready: its packages only if they have changed, its program anew.

    Raises:
        NotInstalled: if a tool is missing or does not succeed; its output is in `install.log` of the folder.
    """
    folder = folder_of(peer, cache)
    folder.mkdir(parents=True, exist_ok=True)
    wanted = hashlib.sha256(f"{sys.version}\n{peer.pins.read_text()}".encode()).hexdigest()
    mark = folder / MARK
    if not mark.exists() or mark.read_text() != wanted:
        shutil.rmtree(folder)
        folder.mkdir()
        shutil.copy(peer.pins, folder)
        for command in _commands(peer):
            await _run(peer, command, cache)
        mark.write_text(wanted)
    shared = [path for path in PROGRAMS.iterdir() if path.is_file()]
    for path in (*shared, *peer.directory.iterdir()):
        if path.is_file():
            shutil.copy(path, folder)


def _commands(peer: Peer) -> list[tuple[str, ...]]:
    if peer.language is Language.NODE:
        return [("npm", "install", "--omit=dev", "--no-audit", "--no-fund", "--no-package-lock")]
    return [
        (sys.executable, "-m", "venv", "venv"),
        ("python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", "requirements.txt"),
    ]


async def _run(peer: Peer, command: Sequence[str], cache: Path) -> None:
    environment, folder = variables(peer, cache), folder_of(peer, cache)
    name = Path(command[0]).name
    found = shutil.which(command[0], path=environment["PATH"])
    if found is None:
        raise NotInstalled(f"there is no {name} on this machine")
    program = Program(name=name, argv=(found, *command[1:]), directory=folder, environment=environment)
    with (folder / LOG).open("ab") as log:
        child = Child(program, log.fileno())
    try:
        async with asyncio.timeout(INSTALL_SECONDS):
            exit_code = await child.wait()
    except TimeoutError:
        raise NotInstalled(f"{name} did not end within {INSTALL_SECONDS:.0f} s") from None
    finally:
        child.kill_tree()
    if exit_code != 0:
        raise NotInstalled(f"{name} ended with exit code {exit_code}: see {LOG} in its folder")
