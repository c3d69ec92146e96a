"""What a workflow is: steps, what each needs before it can start, and the snapshot that a run keeps.

A run is decided by its snapshot alone, never by the file of today. Today each step needs the one before
it; `next_steps` asks only for `needs`, so that a graph can come without a change here.
"""

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec

from orqestra.model import limits
from orqestra.model.errors import InvalidDefinition
from orqestra.model.job import GRACE_DEFAULT_MS, QUEUE_DEFAULT, JobSpec, JobType, label_list
from orqestra.model.payload import ShellPayload
from orqestra.model.retry import RetryPolicy
from orqestra.model.retry_rules import Jitter

# Raised when an older server must not run a newer snapshot. A key that it may ignore does not raise it.
SNAPSHOT_VERSION: Final = 1
NAME_PATTERN: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{limits.NAME_CHARS - 1}}}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One step: the job it becomes when all steps that it `needs` are completed.

    `key` is unique in its workflow, `index` counts from 0 in the order of the file; `timeout_ms` 0 is none.
    """

    key: str
    index: int = 0
    shell: ShellPayload
    retries: RetryPolicy = field(default_factory=RetryPolicy)
    timeout_ms: int = 0
    grace_ms: int = GRACE_DEFAULT_MS
    queue: str = QUEUE_DEFAULT
    priority: int = limits.PRIORITY_DEFAULT
    labels: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()

    def payload(self) -> bytes:
        """Return the payload of the step's job, JSON without what is not set."""
        return json.dumps(_shell_content(self.shell), ensure_ascii=False, separators=(",", ":")).encode()

    def job(self) -> JobSpec:
        """Return the job that the step becomes. Raises InvalidInput if its labels are not allowed."""
        return JobSpec(
            type=JobType.SHELL,
            payload=self.payload(),
            queue=self.queue,
            priority=self.priority,
            requires=label_list(self.labels),
            retries=self.retries,
            timeout_ms=self.timeout_ms,
            grace_ms=self.grace_ms,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Definition:
    """A workflow as it was when it was read. `digest` is the SHA-256 of all that matters to a run."""

    name: str
    steps: tuple[Step, ...]
    digest: str

    def snapshot(self) -> dict[str, Any]:
        """Return the JSON document that a run keeps; `from_snapshot` reads it back."""
        return {"version": SNAPSHOT_VERSION, "digest": self.digest, **_content(self.name, self.steps)}


def define(name: str, steps: Iterable[Step]) -> Definition:
    """Return the definition of steps that run one after the other: `index` and `needs` are set here."""
    placed: list[Step] = []
    for index, step in enumerate(steps):
        needs = (placed[-1].key,) if placed else ()
        placed.append(replace(step, index=index, needs=needs))
    ordered = tuple(placed)
    return Definition(name=name, steps=ordered, digest=_digest(_content(name, ordered)))


def from_snapshot(snapshot: Mapping[str, Any]) -> Definition:
    """Read a snapshot. Keys that this version does not know are ignored, missing ones have their default.

    Raises:
        InvalidDefinition: if it was written for a newer version, or is no snapshot at all.
    """
    version = snapshot.get("version")
    if version != SNAPSHOT_VERSION:
        problem = f"has version {version!r}; this server reads version {SNAPSHOT_VERSION} and has to be upgraded"
        raise InvalidDefinition("snapshot", 0, problem)
    try:
        # The digest is the stored one: with keys left out, it could not be computed again.
        return msgspec.convert(snapshot, Definition)
    except msgspec.ValidationError as error:
        raise InvalidDefinition("snapshot", 0, str(error)) from error


def first_steps(definition: Definition) -> tuple[Step, ...]:
    """Return the steps that a new run starts with."""
    return next_steps(definition, ())


def next_steps(definition: Definition, done: Collection[str]) -> tuple[Step, ...]:
    """Return the steps not in `done` whose needs are all in `done`, in the order of the file.

    A step that is under way is among them: its insertion is unique per (run, step) and does nothing twice.
    """
    return tuple(step for step in definition.steps if step.key not in done and all(need in done for need in step.needs))


def is_complete(definition: Definition, done: Collection[str]) -> bool:
    """Return whether all steps are in `done`."""
    return all(step.key in done for step in definition.steps)


def _content(name: str, steps: tuple[Step, ...]) -> dict[str, Any]:
    return {"name": name, "steps": [_step_content(step) for step in steps]}


def _step_content(step: Step) -> dict[str, Any]:
    content: dict[str, Any] = msgspec.to_builtins(step)
    # Rules that are not set are left out: a file that does not change keeps the digest it had before there were any.
    retries = {name: value for name, value in content["retries"].items() if value not in ((), Jitter.FULL)}
    return {**content, "retries": retries, "shell": _shell_content(step.shell)}


def _shell_content(shell: ShellPayload) -> dict[str, Any]:
    content: dict[str, Any] = msgspec.to_builtins(shell)
    return {name: value for name, value in content.items() if value not in ({}, None) and value is not False}


def _digest(content: dict[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
