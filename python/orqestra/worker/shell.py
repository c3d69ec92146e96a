"""From the payload of a `shell` job to the command that the supervisor runs."""

import os
from collections.abc import Mapping
from pathlib import Path

from orqestra.model.payload import ShellPayload, parse_shell
from orqestra.v1.worker_pb2 import Assignment
from orqestra.worker.environment import job_environment
from orqestra.worker.supervised import Command
from orqestra.worker.surroundings import Surroundings


class Shell:
    """Prepares commands. Without a `cwd` of its own, a command runs where the worker was started.

    Each gets a folder of its own below `jobs_directory`, which goes with all in it when the command has ended.
    """

    def __init__(self, base: Mapping[bytes, bytes], jobs_directory: Path, surroundings: Surroundings) -> None:
        self._base = base
        self._surroundings = surroundings
        self._jobs_directory = os.fsencode(jobs_directory)
        self._cwd = os.fsencode(Path.cwd())

    def prepare(self, assignment: Assignment, key: int) -> Command:
        """Return the command of a job, under the supervisor's `key`.

        Raises:
            InvalidInput: the payload is not one that can be run here.
        """
        payload = parse_shell(assignment.payload)
        account = self._surroundings.account(payload)
        assignment.timeout_ms = self._surroundings.timeout_ms(assignment.timeout_ms)
        environment = self._environment(assignment, payload)
        previous_output = assignment.previous_output if assignment.has_previous_output else None
        _strip(assignment)
        return Command(
            key=key,
            tag=assignment.SerializeToString(),
            argv=[part.encode() for part in payload.arguments()],
            env=list(environment.items()),
            cwd=self._cwd if payload.cwd is None else payload.cwd.encode(),
            stdin=None if payload.stdin is None else payload.stdin.encode(),
            timeout_ms=assignment.timeout_ms,
            grace_ms=assignment.grace_ms,
            limits=self._surroundings.limits(payload),
            user=account,
            allow_background=payload.allow_background,
            directory=self._jobs_directory,
            previous_output=previous_output,
        )

    def _environment(self, assignment: Assignment, payload: ShellPayload) -> dict[bytes, bytes]:
        return {
            **self._base,
            **self._surroundings.home(payload),
            **{name.encode(): value.encode() for name, value in payload.env.items()},
            **job_environment(assignment),
        }


def _strip(assignment: Assignment) -> None:
    """Take out of an assignment what only a start needs: the rest is kept, and read at the end by whichever daemon."""
    for name in ("payload", "has_previous_output", "previous_output"):
        assignment.ClearField(name)
