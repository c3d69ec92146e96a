"""Who a worker is: a directory of its own, locked while it lives, with what must survive a restart.

    STATE_DIR/worker-0/lock        held by the living worker
    STATE_DIR/worker-0/identity    worker_id, and the number up to which Hellos were numbered
    STATE_DIR/worker-0/spool/      results that no server has acknowledged: the supervisor's, as are all below
    STATE_DIR/worker-0/jobs/       private folders of the commands that run; emptied when a supervisor starts
    STATE_DIR/worker-0/supervisor.{sock,lock,log}

Several workers can share a state directory: each takes the first directory that no other has locked.
"""

import fcntl
import os
import uuid
from pathlib import Path
from typing import Final, Self

import msgspec

from orqestra.model.errors import StartFailed

# Numbers are made durable in blocks, so that a storm of reconnects does not wait for the disk.
NUMBER_BLOCK: Final = 100
DIRECTORIES_MAX: Final = 1000
PRIVATE: Final = 0o700
PRIVATE_FILE: Final = 0o600
# Others may pass through to what is theirs, and see nothing on the way.
TRAVERSABLE: Final = 0o711


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    worker_id: uuid.UUID
    reserved: int


class Identity:
    """The identity of one worker and its locked directory; `open` makes it, `close` gives it up.

    `worker_id` is the same at every start, `index` tells the workers of one state directory apart.
    """

    def __init__(self, directory: Path, index: int, lock: int, kept: _Kept) -> None:
        self.worker_id = str(kept.worker_id)
        self.index = index
        self.directory = directory
        self.jobs_directory = directory / "jobs"
        self._file = directory / "identity"
        self._lock = lock
        self._kept = kept
        self._number = kept.reserved

    @classmethod
    def open(cls, state_dir: Path, *, traversable: bool = False) -> Self:
        """Lock the first free directory below `state_dir` and read or make the identity in it.

        Traversable is it for commands that run as other users and reach their own folders in it.

        Raises:
            StartFailed: the directory can't be used, or what is kept in it can't be read.
        """
        try:
            index, directory, lock = _lock_directory(state_dir.absolute())
            if traversable:
                state_dir.chmod(TRAVERSABLE)
                directory.chmod(TRAVERSABLE)
            identity = cls(directory, index, lock, _read(directory / "identity"))
        except OSError as error:
            raise StartFailed(
                f"the state directory {state_dir} can't be used: {error}; "
                "set ORQESTRA_STATE_DIR to a directory that the worker can write to"
            ) from error
        return identity

    def next_number(self) -> int:
        """Return a number higher than any returned before, by this process or an earlier one."""
        if self._number >= self._kept.reserved:
            reserved = self._kept.reserved + NUMBER_BLOCK
            kept = _Kept(worker_id=self._kept.worker_id, reserved=reserved)
            # First: on a full disk nothing is reserved, and the next call tries again.
            _write(self._file, kept)
            self._kept = kept
        self._number += 1
        return self._number

    def close(self) -> None:
        """Give the directory up. Whoever takes it next is this worker."""
        os.close(self._lock)


def _lock_directory(state_dir: Path) -> tuple[int, Path, int]:
    state_dir.mkdir(PRIVATE, parents=True, exist_ok=True)
    for index in range(DIRECTORIES_MAX):
        directory = state_dir / f"worker-{index}"
        if not directory.exists():
            directory.mkdir(PRIVATE, exist_ok=True)
            _sync_directory(state_dir)
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
        else:
            return index, directory, lock
    raise StartFailed(f"all {DIRECTORIES_MAX} worker directories in {state_dir} are locked by living workers")


def _read(file: Path) -> _Kept:
    try:
        return msgspec.json.decode(file.read_bytes(), type=_Kept)
    except FileNotFoundError:
        return _Kept(worker_id=uuid.uuid4(), reserved=0)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StartFailed(
            f"{file} is not the identity of a worker: {error}; remove it, and the worker gets a new identity"
        ) from error


def _write(file: Path, kept: _Kept) -> None:
    """Replace the file; on return it survives a loss of power."""
    new = file.with_suffix(".new")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE_FILE), "wb") as stream:
        stream.write(msgspec.json.encode(kept))
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(file)
    _sync_directory(file.parent)


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
