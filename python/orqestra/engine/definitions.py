"""A workflow file, checked and read: bytes in, a `Definition` out. docs/workflows.md is its reference.

One thing that is wrong is told at a time, with its line. What holds for every job is not said again
here: each step is checked as the job it becomes (`model.job.check_job`).
"""

import re
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import yaml

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
from orqestra.model import limits
from orqestra.model.duration import parse_duration
from orqestra.model.errors import InvalidInput
from orqestra.model.job import GRACE_DEFAULT_MS, QUEUE_DEFAULT, check_job
from orqestra.model.payload import ShellPayload
from orqestra.model.retry import DELAY_MAX_MS, RetryPolicy, check_retry_policy
from orqestra.model.workflow import NAME_PATTERN, Definition, Step, define

WORKFLOW_KEYS: Final = ("name", "steps")
STEP_KEYS: Final = (
    "name",
    "command",
    "argv",
    "env",
    "cwd",
    "stdin",
    "retries",
    "timeout",
    "grace",
    "queue",
    "priority",
    "labels",
)
# Keys of a `retries` mapping, and the attributes of the policy that they set.
RETRY_KEYS: Final = {"max": "max_retries", "base": "base_ms", "factor": "factor", "cap": "cap_ms"}
TIMEOUT_MAX_MS: Final = limits.TIMEOUT_MAX_SECONDS * 1000
GRACE_MAX_MS: Final = limits.GRACE_MAX_SECONDS * 1000

_NAME_RULE: Final = f"1 to {limits.NAME_CHARS} letters, digits, '.', '_' or '-', the first a letter or digit"
_INTEGER: Final = re.compile(r"-?(0|[1-9][0-9]{0,11})")
_DECIMAL: Final = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?")
# Found in a file that is broken elsewhere too, so that its workflow is "broken" and not "not found".
_NAME_LINE: Final = re.compile(rf"""^name:[ ]*["']?({NAME_PATTERN.pattern})["']?[ ]*(#.*)?\r?$""", re.MULTILINE)

Values = Mapping[str, yaml.Node]
T = TypeVar("T")


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
        key=_given(values, "name", _name, f"step-{number}"),
        shell=_shell(node, values, number),
        retries=_given(values, "retries", _retries, RetryPolicy()),
        timeout_ms=_duration(values, "timeout", TIMEOUT_MAX_MS, default_ms=0),
        grace_ms=_duration(values, "grace", GRACE_MAX_MS, default_ms=GRACE_DEFAULT_MS),
        queue=_given(values, "queue", lambda queue: text(queue, "queue"), QUEUE_DEFAULT),
        priority=_given(values, "priority", _priority, limits.PRIORITY_DEFAULT),
        labels=_given(values, "labels", lambda labels: text_fields(labels, "labels"), {}),
    )
    _check_step(node, values, step)
    return step


def _shell(node: yaml.Node, values: Values, number: int) -> ShellPayload:
    if "command" in values and "argv" in values:
        raise refusal(values["argv"], f"step {number} has both command and argv; one of them is needed")
    if "command" not in values and "argv" not in values:
        raise refusal(node, f"step {number} has no command (for /bin/sh) and no argv (without a shell)")
    return ShellPayload(
        command=_given(values, "command", _command, None),
        argv=_given(values, "argv", _argv, None),
        env=_given(values, "env", lambda env: text_fields(env, "env"), {}),
        cwd=_given(values, "cwd", lambda cwd: text(cwd, "cwd"), None),
        stdin=_given(values, "stdin", lambda stdin: text(stdin, "stdin"), None),
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


def _retries(node: yaml.Node) -> RetryPolicy:
    if isinstance(node, yaml.ScalarNode):
        return RetryPolicy(max_retries=_whole(node, "retries", 0, limits.RETRIES_MAX))
    values = fields(node, "retries", tuple(RETRY_KEYS))
    if "max" not in values:
        raise refusal(node, "retries: max is missing, the number of retries")
    standard = RetryPolicy()
    policy = RetryPolicy(
        max_retries=_whole(values["max"], "max", 0, limits.RETRIES_MAX),
        base_ms=_duration(values, "base", DELAY_MAX_MS, default_ms=standard.base_ms),
        factor=_given(values, "factor", _factor, standard.factor),
        cap_ms=_duration(values, "cap", DELAY_MAX_MS, default_ms=standard.cap_ms),
    )
    try:
        return check_retry_policy(policy)
    except InvalidInput as error:
        key = next(key for key, attribute in RETRY_KEYS.items() if attribute == error.field)
        raise refusal(values.get(key, node), f"{key}: {error.problem}") from error


def _priority(node: yaml.Node) -> int:
    return _whole(node, "priority", limits.PRIORITY_MIN, limits.PRIORITY_MAX)


def _name(node: yaml.Node) -> str:
    name = text(node, "name")
    if not NAME_PATTERN.fullmatch(name):
        raise refusal(node, f"name: {shown(name)} is not allowed; a name has {_NAME_RULE}")
    return name


def _duration(values: Values, key: str, longest_ms: int, *, default_ms: int) -> int:
    if key not in values:
        return default_ms
    node = values[key]
    try:
        return parse_duration(written(node, key), field=key, longest_ms=longest_ms)
    except InvalidInput as error:
        raise refusal(node, f"{key}: {error.problem}") from error


def _whole(node: yaml.Node, what: str, least: int, most: int) -> int:
    # The text decides: 010, 0x10 and 1:30 are numbers to YAML 1.1, but hardly the ones that were meant.
    number = written(node, what)
    if kind(node) != "a number" or not _INTEGER.fullmatch(number) or not least <= int(number) <= most:
        needed = f"a whole number from {least} to {most} is needed"
        raise refusal(node, f"{what}: {needed}, this is {shown(number)}")
    return int(number)


def _factor(node: yaml.Node) -> float:
    number = written(node, "factor")
    if kind(node) != "a number" or not _DECIMAL.fullmatch(number):
        raise refusal(node, f"factor: a number such as 2 or 1.5 is needed, this is {shown(number)}")
    return float(number)


def _given(values: Values, key: str, read: Callable[[yaml.Node], T], default: T) -> T:
    return read(values[key]) if key in values else default


def _check_step(node: yaml.Node, values: Values, step: Step) -> None:
    """Apply the rules of every job, and tell them in terms of the file."""
    try:
        check_job(step.job())
    except InvalidInput as error:
        key = error.field.removeprefix("payload.")
        raise refusal(values.get(key, node), f"{key}: {error.problem}") from error


def _refuse_same_names(nodes: list[yaml.Node], steps: list[Step]) -> None:
    lines: dict[str, int] = {}
    for node, step in zip(nodes, steps, strict=True):
        if step.key in lines:
            raise refusal(node, f"two steps are named {step.key}, the first in line {lines[step.key]}")
        lines[step.key] = node.start_mark.line + 1
