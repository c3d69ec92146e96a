"""The kinds of value that a workflow file holds, each read from its node or refused with its line."""

import re
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import yaml

from orqestra.engine.yaml_document import kind, refusal, shown, written
from orqestra.model.duration import parse_duration
from orqestra.model.errors import InvalidInput

_INTEGER: Final = re.compile(r"-?(0|[1-9][0-9]{0,11})")
_DECIMAL: Final = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?")
_TRUE: Final = frozenset({"true", "yes", "on"})

Values = Mapping[str, yaml.Node]
T = TypeVar("T")


def given(values: Values, key: str, read: Callable[[yaml.Node], T], default: T) -> T:
    """Return what `read` makes of the value of a key, or the default where there is none."""
    return read(values[key]) if key in values else default


def checked(node: yaml.Node, what: str, read: Callable[[str], T]) -> T:
    """Return what `read` makes of a value as it is written; its InvalidInput becomes a refusal."""
    try:
        return read(written(node, what))
    except InvalidInput as error:
        raise refusal(node, f"{what}: {error.problem}") from error


def duration(values: Values, key: str, longest_ms: int, *, default_ms: int) -> int:
    """Return a duration in milliseconds."""
    if key not in values:
        return default_ms
    return checked(values[key], key, lambda text: parse_duration(text, field=key, longest_ms=longest_ms))


def whole(node: yaml.Node, what: str, least: int, most: int) -> int:
    """Return a whole number in its range."""
    # The text decides: 010, 0x10 and 1:30 are numbers to YAML 1.1, but hardly the ones that were meant.
    number = written(node, what)
    if kind(node) != "a number" or not _INTEGER.fullmatch(number) or not least <= int(number) <= most:
        needed = f"a whole number from {least} to {most} is needed"
        raise refusal(node, f"{what}: {needed}, this is {shown(number)}")
    return int(number)


def decimal(node: yaml.Node, what: str) -> float:
    """Return a number that may have a fraction."""
    number = written(node, what)
    if kind(node) != "a number" or not _DECIMAL.fullmatch(number):
        raise refusal(node, f"{what}: a number such as 2 or 1.5 is needed, this is {shown(number)}")
    return float(number)


def flag(node: yaml.Node, what: str) -> bool:
    """Return a yes or no, in any of the words that YAML has for them."""
    value = written(node, what)
    if kind(node) != "true or false":
        raise refusal(node, f"{what}: true or false is needed, this is {shown(value)}")
    return value.lower() in _TRUE
