"""A workflow file, checked and read: bytes in, a `Definition` out. docs/workflows.md is its reference.

One thing that is wrong is told at a time, with its line. What holds for every job is not said again
here: each step is checked as the job it becomes (`model.job.check_job`).
"""

import re
from typing import Final

import yaml

from orqestra.engine.retry_definition import retry_policy
from orqestra.engine.yaml_document import (
    compose_document,
    elements,
    fields,
    kind,
    refusal,
    shown,
    text,
    text_fields,
    written,
)
from orqestra.engine.yaml_values import Values, checked, duration, flag, given, whole
from orqestra.model import limits
from orqestra.model.errors import InvalidInput
from orqestra.model.job import GRACE_DEFAULT_MS, QUEUE_DEFAULT, check_job
from orqestra.model.payload import LIMITS_MAX, ResourceLimits, ShellPayload, parse_limit
from orqestra.model.workflow import NAME_PATTERN, Definition, Step, define

WORKFLOW_KEYS: Final = ("name", "steps")
STEP_KEYS: Final = (
    "name",
    "command",
    "argv",
    "env",
    "cwd",
    "stdin",
    "nice",
    "run_as",
    "allow_background",
    "limits",
    "retries",
    "retry",
    "timeout",
    "grace",
    "queue",
    "priority",
    "labels",
)
TIMEOUT_MAX_MS: Final = limits.TIMEOUT_MAX_SECONDS * 1000
GRACE_MAX_MS: Final = limits.GRACE_MAX_SECONDS * 1000

_NAME_RULE: Final = f"1 to {limits.NAME_CHARS} letters, digits, '.', '_' or '-', the first a letter or digit"
# Found in a file that is broken elsewhere too, so that its workflow is "broken" and not "not found".
_NAME_LINE: Final = re.compile(rf"""^name:[ ]*["']?({NAME_PATTERN.pattern})["']?[ ]*(#.*)?\r?$""", re.MULTILINE)


def parse_definition(source: str, data: bytes) -> Definition:
    """Return the workflow that a file defines.

    Raises:
        InvalidDefinition: for any bytes that are not one; it names `source`, the line and what is allowed.
    """
    root = compose_document(source, data)
    values = fields(root, "a workflow", WORKFLOW_KEYS)
    for key in WORKFLOW_KEYS:
        if key not in values:
            raise refusal(root, f"{key} is missing; a workflow has name and steps")
    name = _name(values["name"])
    nodes = elements(values["steps"], "steps")
    if not 1 <= len(nodes) <= limits.STEPS:
        raise refusal(values["steps"], f"steps: {len(nodes)} steps; 1 to {limits.STEPS} are allowed")
    steps = [_step(node, number) for number, node in enumerate(nodes, 1)]
    _refuse_same_names(nodes, steps)
    return define(name, steps)


def declared_name(data: bytes) -> tuple[str | None, int]:
    """Return the name that a file gives its workflow, and its line, as far as can be told without parsing."""
    content = data[: limits.DEFINITION_BYTES].decode("utf-8", "replace")
    found = _NAME_LINE.search(content)
    return (found[1], content.count("\n", 0, found.start()) + 1) if found else (None, 0)


def _step(node: yaml.Node, number: int) -> Step:
    values = fields(node, f"step {number}", STEP_KEYS)
    step = Step(
        key=given(values, "name", _name, f"step-{number}"),
        shell=_shell(node, values, number),
        retries=retry_policy(values),
        timeout_ms=duration(values, "timeout", TIMEOUT_MAX_MS, default_ms=0),
        grace_ms=duration(values, "grace", GRACE_MAX_MS, default_ms=GRACE_DEFAULT_MS),
        queue=given(values, "queue", lambda queue: text(queue, "queue"), QUEUE_DEFAULT),
        priority=given(values, "priority", _priority, limits.PRIORITY_DEFAULT),
        labels=given(values, "labels", lambda labels: text_fields(labels, "labels"), {}),
    )
    _check_step(node, values, step)
    return step


def _shell(node: yaml.Node, values: Values, number: int) -> ShellPayload:
    if "command" in values and "argv" in values:
        raise refusal(values["argv"], f"step {number} has both command and argv; one of them is needed")
    if "command" not in values and "argv" not in values:
        raise refusal(node, f"step {number} has no command (for /bin/sh) and no argv (without a shell)")
    return ShellPayload(
        command=given(values, "command", _command, None),
        argv=given(values, "argv", _argv, None),
        env=given(values, "env", lambda env: text_fields(env, "env"), {}),
        cwd=given(values, "cwd", lambda cwd: text(cwd, "cwd"), None),
        stdin=given(values, "stdin", lambda stdin: text(stdin, "stdin"), None),
        nice=given(values, "nice", lambda nice: whole(nice, "nice", 0, limits.NICE_MAX), None),
        run_as=given(values, "run_as", lambda account: written(account, "run_as"), None),
        allow_background=given(values, "allow_background", lambda allow: flag(allow, "allow_background"), False),
        limits=given(values, "limits", _limits, None),
    )


def _command(node: yaml.Node) -> str:
    # `command: true` is a command too, and is meant as one.
    if kind(node) == "true or false":
        return written(node, "command")
    if kind(node) == "a list":
        raise refusal(node, "command: text is needed, this is a list; a command without a shell is argv")
    return text(node, "command")


def _argv(node: yaml.Node) -> tuple[str, ...]:
    return tuple(written(part, "argv") for part in elements(node, "argv"))


def _limits(node: yaml.Node) -> ResourceLimits | None:
    """Read the limits of a step; an empty list of them is none."""
    values = fields(node, "limits", tuple(LIMITS_MAX))
    return None if not values else ResourceLimits(**{name: _limit(value, name) for name, value in values.items()})


def _limit(node: yaml.Node, name: str) -> int:
    return checked(node, name, lambda value: parse_limit(name, value, field=name))


def _priority(node: yaml.Node) -> int:
    return whole(node, "priority", limits.PRIORITY_MIN, limits.PRIORITY_MAX)


def _name(node: yaml.Node) -> str:
    name = text(node, "name")
    if not NAME_PATTERN.fullmatch(name):
        raise refusal(node, f"name: {shown(name)} is not allowed; a name has {_NAME_RULE}")
    return name


def _check_step(node: yaml.Node, values: Values, step: Step) -> None:
    """Apply the rules of every job, and tell them in terms of the file."""
    try:
        check_job(step.job())
    except InvalidInput as error:
        key = error.field.removeprefix("payload.")
        raise refusal(values.get(key.partition(".")[0], node), f"{key}: {error.problem}") from error


def _refuse_same_names(nodes: list[yaml.Node], steps: list[Step]) -> None:
    lines: dict[str, int] = {}
    for node, step in zip(nodes, steps, strict=True):
        if step.key in lines:
            raise refusal(node, f"two steps are named {step.key}, the first in line {lines[step.key]}")
        lines[step.key] = node.start_mark.line + 1
