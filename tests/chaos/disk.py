"""A disk that is small: what is on it is all there is room for. Takes root, as it is mounted."""

import errno
import os
import subprocess
from pathlib import Path
from typing import Final

MEGABYTE: Final = 1024 * 1024
# The last pages are taken one by one.
CHUNKS_BYTES: Final = (MEGABYTE, 4096)


def put_disk(folder: Path, megabytes: int) -> None:
    """Make `folder`, and let all that is in it share so much room."""
    folder.mkdir()
    _run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "tmpfs", str(folder))


def take_away(folder: Path) -> None:
    """Remove the disk and all that is on it, if there is one."""
    if os.path.ismount(folder):
        _run("umount", "--lazy", str(folder))


def fill(file: Path) -> None:
    """Take all the room that is left on the disk of `file`, by that file."""
    assert os.path.ismount(file.parent), f"{file.parent} is on a disk that others need"
    with file.open("wb", buffering=0) as filler:
        for size in CHUNKS_BYTES:
            _write_on(filler.fileno(), bytes(size))


def _write_on(descriptor: int, chunk: bytes) -> None:
    while True:
        try:
            os.write(descriptor, chunk)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return


def _run(*words: str) -> None:
    subprocess.run(words, check=True)
