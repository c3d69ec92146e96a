"""The supervisor of a worker: found or started, watched, and replaced when it has ended.

It is a process of its own, in which the commands run and their results are kept, so that both outlive
this daemon (`crates/dispatch/src/supervisor`, docs/executor.md). It lives in the worker's directory,
and listens there for the next daemon.
"""

import asyncio
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from orqestra import __version__
from orqestra._dispatch import Supervisor
from orqestra.log import get_logger
from orqestra.model.errors import StartFailed

# Elsewhere `supervised` has another way, and nobody comes here.
assert sys.platform == "linux"

SOCKET: Final = "supervisor.sock"
LOG: Final = "supervisor.log"
# What a supervisor complains of is short; a log of this size is begun anew.
LOG_BYTES: Final = 1 << 20
# It imports this module and nothing else, then stays in Rust: 6 MB, and no thread of the interpreter.
PROGRAM: Final = (
    "import sys; from orqestra._dispatch import supervise;"
    " supervise(sys.argv[1], daemon=int(sys.argv[2]), version=sys.argv[3], incarnation=sys.argv[4],"
    " orphan_ms=int(sys.argv[5]))"
)
# `-I`: whatever the environment says of Python is not meant for it.
COMMAND: tuple[str, ...] = (sys.executable, "-I", "-c", PROGRAM)
# From its last word to its end: the disk may take two seconds to take what waits.
END_SECONDS: Final = 4.0

log = get_logger(__name__)


class Supervision:
    """Keeps a worker's directory supervised. `supervisor` is None only between a loss and the next start.

    `incarnation` names what runs the commands: it changes when a supervisor is lost, and not when a
    daemon is.
    """

    def __init__(self, directory: Path, orphan_seconds: float, *, command: Sequence[str] | None = None) -> None:
        self.supervisor: Supervisor | None = None
        self.incarnation = str(uuid.uuid4())
        self._directory = directory
        self._orphan_ms = int(orphan_seconds * 1000)
        self._command = tuple(command or COMMAND)
        self._child: subprocess.Popen[bytes] | None = None

    def open(self) -> Supervisor:
        """Return the supervisor that lives here, or a new one; waits until it has answered.

        Raises:
            StartFailed: it can't be started, or is of a version that this one can't talk to.
        """
        supervisor = self._find() or self._start()
        if supervisor.protocol != Supervisor.PROTOCOL:
            raise StartFailed(
                f"the supervisor in {self._directory} is of version {supervisor.version} and speaks protocol "
                f"{supervisor.protocol}, this worker {Supervisor.PROTOCOL}: commands of the earlier worker still "
                f"run there; start again once they have ended, at the latest after its orphan timeout"
            )
        self.supervisor = supervisor
        self.incarnation = supervisor.incarnation
        return supervisor

    def lost(self) -> None:
        """Note that the supervisor has ended, and all commands with it."""
        self.supervisor = None
        self.incarnation = str(uuid.uuid4())
        if self._child is not None:
            # It ends by itself only after a fault; whatever it is, it must not be two.
            self._child.kill()
            self._child.wait()
            self._child = None

    async def close(self) -> None:
        """Let it end, and return when it has."""
        if self.supervisor is None:
            return
        with suppress(ProcessLookupError):
            process = os.pidfd_open(self.supervisor.pid)
            try:
                self.supervisor.hang_up()
                await _readable(process, END_SECONDS)
            finally:
                os.close(process)
        self.supervisor = None
        if self._child is not None:
            self._child.poll()

    def _find(self) -> Supervisor | None:
        """Return the supervisor that an earlier daemon left."""
        connection = self._connect()
        if connection is None:
            return None
        try:
            found = self._attach(connection)
        except OSError as error:
            # It was on its way out; the next one waits for its lock.
            log.info("the supervisor that was here has ended", reason=str(error))
            return None
        if found.version != __version__ and not found.held:
            log.info("the supervisor is of another version and holds nothing: it is replaced", version=found.version)
            found.stop()
            found.hang_up()
            return None
        log.info("supervisor found", pid=found.pid, held=len(found.held))
        return found

    def _connect(self) -> socket.socket | None:
        folder = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        connection = socket.socket(socket.AF_UNIX)
        try:
            # The path of a socket may have 107 bytes, that of the directory can have more.
            connection.connect(f"/proc/self/fd/{folder}/{SOCKET}")
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            return None
        finally:
            os.close(folder)
        return connection

    def _start(self) -> Supervisor:
        ours, its = socket.socketpair()
        arguments = (str(self._directory), str(its.fileno()), __version__, self.incarnation, str(self._orphan_ms))
        try:
            with its, self._open_log() as complaints:
                self._child = subprocess.Popen(  # noqa: S603  our own interpreter and program
                    (*self._command, *arguments),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=complaints,
                    pass_fds=(its.fileno(),),
                    # A session of its own: what is typed at our terminal is not for it.
                    start_new_session=True,
                )
            return self._attach(ours)
        except OSError as error:
            ours.close()
            if self._child is not None:
                # Its complaint is whole once it has ended.
                if isinstance(error, TimeoutError):
                    self._child.kill()
                self._child.wait()
            raise StartFailed(
                f"the supervisor in {self._directory} can't be started: {error}{self._last_words()}"
            ) from error

    def _attach(self, connection: socket.socket) -> Supervisor:
        return Supervisor(connection.detach(), version=__version__, orphan_ms=self._orphan_ms)

    def _open_log(self) -> BinaryIO:
        path = self._directory / LOG
        with suppress(FileNotFoundError):
            if path.stat().st_size > LOG_BYTES:
                path.unlink()
        return open(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600), "ab")

    def _last_words(self) -> str:
        try:
            lines = (self._directory / LOG).read_text(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return f"; it said: {lines[-1]}" if lines else ""


async def _readable(descriptor: int, seconds: float) -> bool:
    """Return once there is something to be read, or False after `seconds`."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        async with asyncio.timeout(seconds):
            await readable.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(descriptor)
    return True
