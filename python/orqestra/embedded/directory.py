"""The folder of an embedded installation: who holds it, its log files, and where its sockets can go."""

import fcntl
import hashlib
import os
import stat
import tempfile
from pathlib import Path
from typing import IO, Final

from orqestra.embedded.leftover import read_pid
from orqestra.embedded.process import Account
from orqestra.model.errors import StartFailed

LOCK_FILE: Final = "orqestra.lock"
SOCKET_PATH_BYTES: Final = 107  # sun_path of Linux, less its final NUL
LOG_BYTES: Final = 8 * 1024 * 1024  # a longer log is put aside at the next start
TAIL_BYTES: Final = 1500
OURS_ALONE: Final = 0o700


class DirectoryLock:
    """Holds a data directory for one process. The kernel frees it at our end, however that comes."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / LOCK_FILE
        self._descriptor: int | None = None

    def acquire(self) -> int | None:
        """Take the lock; return the pid of a holder that ended without giving it back, if there was one.

        Raises StartFailed, which names the holder, if a living process has it.
        """
        descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise StartFailed(
                f"{self._file.parent} is in use by process {read_pid(self._file)}: stop that one first, "
                "or name another directory"
            ) from None
        previous = read_pid(self._file)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor
        return previous

    def release(self) -> None:
        """Give the lock back. The empty file stays: removing it would let two processes lock two files."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None


def socket_directory(preferred: Path, file_name: str, account: Account | None = None) -> Path:
    """Return a directory whose path leaves room for the socket `file_name`, closed to everybody else.

    That is `preferred`, or if its path is too long one under the temporary directory, named after it,
    so that the next start finds the same. `account` is its owner if that is not us.
    """
    if len(os.fsencode(preferred / file_name)) <= SOCKET_PATH_BYTES:
        return preferred
    digest = hashlib.sha256(os.fsencode(preferred)).hexdigest()[:12]
    short = Path(tempfile.gettempdir()) / f"orqestra-{os.geteuid()}-{digest}"
    if len(os.fsencode(short / file_name)) > SOCKET_PATH_BYTES:
        raise StartFailed(
            f"{preferred} and {short} are both too long for a socket, whose path has at most "
            f"{SOCKET_PATH_BYTES} bytes: name a shorter data directory or TMPDIR"
        )
    owner = account.user_id if account else os.geteuid()
    short.mkdir(mode=OURS_ALONE, exist_ok=True)
    if account is not None and short.lstat().st_uid == os.geteuid():
        os.chown(short, account.user_id, account.group_id, follow_symlinks=False)
    found = short.lstat()
    # Anybody may make a directory of this name first.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or stat.S_IMODE(found.st_mode) != OURS_ALONE:
        raise StartFailed(f"{short} is needed for a socket but is not a directory of ours alone: remove it")
    return short


def open_log(path: Path) -> IO[bytes]:
    """Open a log file of a child to append to, putting a long one of earlier starts aside as `.old`."""
    if path.exists() and path.stat().st_size > LOG_BYTES:
        path.rename(path.with_name(path.name + ".old"))
    return path.open("ab")


def tail(path: Path) -> str:
    """Return the end of a log file for an error message, from the start of a line."""
    text = path.read_bytes()[-TAIL_BYTES:].decode(errors="replace")
    return text.strip() or "(an empty log)"
