"""From the command to its process, which leads a session and a group of its own."""

import errno
import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Final

from orqestra.worker.portable.values import Command, Failure

PREVIOUS_OUTPUT: Final = "previous-output"
# What others may not do with the files a command makes: write.
UMASK: Final = 0o022
RESOURCES: Final = {
    "open_files": resource.RLIMIT_NOFILE,
    "file_bytes": resource.RLIMIT_FSIZE,
    "cpu_seconds": resource.RLIMIT_CPU,
    "address_space_bytes": resource.RLIMIT_AS,
}
# From XCPU, which can be caught, to KILL.
CPU_GRACE_SECONDS: Final = 1
# What could not be done, by the stage in which it failed.
CANNOT: Final = {
    "directory": "make a folder for it:",
    "stdin": "hold its standard input:",
    "fork": "make a process",
    "cwd": "enter the working directory",
    "exec": "run",
}


@dataclass(frozen=True, kw_only=True)
class Launched:
    """A command that runs, and its private folder."""

    process: "subprocess.Popen[bytes]"
    directory: Path | None


def launch(command: Command) -> Launched | Failure:
    """Start a command."""
    if fault := _fault(command):
        return Failure(stage="command", errno=errno.EINVAL, error=fault)
    if command.user is not None:
        return Failure(stage="user", errno=errno.EPERM, error="run_as: works on Linux only")
    directory: Path | None = None
    stage = "directory"
    try:
        directory = _directory(command)
        stage = "stdin"
        with _stdin(command.stdin) as stdin:
            stage = ""
            return Launched(process=_spawn(command, directory, stdin), directory=directory)
    except OSError as error:
        failure = _failure(stage or _stage(command, error), error)
    except subprocess.SubprocessError as error:
        failure = Failure(stage="setup", errno=errno.EIO, error=f"cannot set up its process: {error}")
    remove(directory)
    return failure


def remove(directory: Path | None) -> None:
    """Remove the private folder of a command; what can't be removed is the next start's."""
    if directory is not None:
        shutil.rmtree(directory, ignore_errors=True)


def _fault(command: Command) -> str:
    """Return why the system can't take a command; empty if it can."""
    if not command.argv or not command.argv[0]:
        return "argv: there is no program"
    if command.previous_output is not None and command.directory is None:
        return "previous_output: there is no directory to hold it"
    for name, value in command.env:
        if not name or b"=" in name:
            return f"env[{name!r}]: the name of a variable can't be empty or hold '='"
        if b"\0" in name or b"\0" in value:
            return f"env[{name!r}]: holds a NUL byte"
    if b"\0" in b"".join((*command.argv, command.cwd or b"")):
        return "argv or cwd: holds a NUL byte"
    return ""


def _directory(command: Command) -> Path | None:
    if command.directory is None:
        return None
    directory = Path(tempfile.mkdtemp(prefix="", dir=os.fsdecode(command.directory)))
    if command.previous_output is not None:
        file = directory / PREVIOUS_OUTPUT
        file.touch(0o600)
        file.write_bytes(command.previous_output)
    return directory


@contextmanager
def _stdin(content: bytes | None) -> Iterator[IO[bytes] | int]:
    """What a command reads: a file, which takes any size and waits for nobody."""
    if content is None:
        yield subprocess.DEVNULL
        return
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.seek(0)
        yield file


def _spawn(command: Command, directory: Path | None, stdin: IO[bytes] | int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(  # noqa: S603  what runs here is the whole purpose
        command.argv,
        bufsize=0,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Python between fork and exec of a process with threads is a risk: only where nothing else sets limits.
        preexec_fn=_restriction(command.limits or {}),  # noqa: PLW1509  see above
        cwd=command.cwd,
        env=dict(command.env) | _told(command, directory),
        start_new_session=True,
        umask=UMASK,
    )


def _told(command: Command, directory: Path | None) -> dict[bytes, bytes]:
    """Return what a command is told of its private folder."""
    if directory is None:
        return {}
    told = {b"ORQESTRA_TMPDIR": bytes(directory)}
    if b"TMPDIR" not in dict(command.env):
        told[b"TMPDIR"] = bytes(directory)
    if command.previous_output is not None:
        told[b"ORQESTRA_PREVIOUS_OUTPUT_FILE"] = bytes(directory / PREVIOUS_OUTPUT)
    return told


def _restriction(limits: Mapping[str, int]) -> Callable[[], None] | None:
    bounds = {RESOURCES[name]: bound for name, bound in limits.items() if name in RESOURCES}
    nice = limits.get("nice", 0)
    return partial(_restrict, nice, bounds) if nice or bounds else None


def _restrict(nice: int, bounds: Mapping[int, int]) -> None:
    """Set the limits of this process, at most to the hard ones that it has."""
    if nice:
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    for which, bound in bounds.items():
        _, most = resource.getrlimit(which)
        hard = bound + CPU_GRACE_SECONDS if which == resource.RLIMIT_CPU else bound
        if most != resource.RLIM_INFINITY:
            hard = min(hard, most)
        resource.setrlimit(which, (min(bound, hard), hard))


def _failure(stage: str, error: OSError) -> Failure:
    about = "" if error.filename is None else f" {os.fsdecode(error.filename)}"
    return Failure(
        stage=stage, errno=error.errno or errno.EIO, error=f"cannot {CANNOT[stage]}{about}: {error.strerror}"
    )


def _stage(command: Command, error: OSError) -> str:
    """Return where a start failed, by the file that it was about."""
    if error.filename is None:
        return "fork"
    return "exec" if error.filename == command.argv[0] else "cwd"
