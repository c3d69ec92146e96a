"""From the payload of a `shell` job to the command that the executor runs."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orqestra._dispatch import Command
from orqestra.model.payload import ShellPayload, parse_shell
from orqestra.v1.worker_pb2 import Assignment
from orqestra.worker.environment import job_environment

PRIVATE: Final = 0o700
PREVIOUS_OUTPUT: Final = "previous-output"


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """A command that can be started, and the private directory that goes when it has ended, if it has one."""

    command: Command
    directory: Path | None

    def clean_up(self) -> None:
        """Remove the directory; whatever the command left there goes with it."""
        if self.directory is not None:
            shutil.rmtree(self.directory, ignore_errors=True)


class Shell:
    """Prepares commands. Without a `cwd` of its own, a command runs where the worker was started."""

    def __init__(self, base: Mapping[bytes, bytes], jobs_directory: Path) -> None:
        self._base = base
        self._jobs_directory = jobs_directory

    def prepare(self, assignment: Assignment, key: int) -> Prepared:
        """Return the command of a job, under the executor's `key`.

        Raises:
            InvalidInput: the payload is not one that can be run.
            OSError: the previous output can't be written.
        """
        payload = parse_shell(assignment.payload)
        directory = self._hand_on(assignment) if assignment.has_previous_output else None
        return Prepared(command=self._command(assignment, payload, key, directory), directory=directory)

    def _command(self, assignment: Assignment, payload: ShellPayload, key: int, directory: Path | None) -> Command:
        previous = os.fsencode(directory / PREVIOUS_OUTPUT) if directory else None
        environment = {
            **self._base,
            **{name.encode(): value.encode() for name, value in payload.env.items()},
            **job_environment(assignment, previous),
        }
        return Command(
            key=key,
            argv=[part.encode() for part in payload.arguments()],
            env=list(environment.items()),
            cwd=None if payload.cwd is None else payload.cwd.encode(),
            stdin=None if payload.stdin is None else payload.stdin.encode(),
            timeout_ms=assignment.timeout_ms,
            grace_ms=assignment.grace_ms,
        )

    def _hand_on(self, assignment: Assignment) -> Path:
        """Write the previous step's output, byte for byte, where only this user can read it."""
        attempt = assignment.attempt
        directory = self._jobs_directory / f"{attempt.job_id}-{attempt.fence}"
        directory.mkdir(PRIVATE, exist_ok=True)
        try:
            (directory / PREVIOUS_OUTPUT).write_bytes(assignment.previous_output)
        except OSError:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        return directory
