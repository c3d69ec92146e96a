"""The kinds of value that options take: durations, times, labels, states, ids."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

import click

from orqestra.model.duration import LONGEST_MS, parse_duration
from orqestra.model.errors import InvalidInput

ID_MAX: Final = 2**63 - 1

_RFC_3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_SEPARATORS: Final = re.compile(r"[|,]")

Value = TypeVar("Value")


class Id(click.ParamType[int]):
    """The id of a job or a run."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read an id."""
        if isinstance(value, int):
            return value
        if not re.fullmatch(r"[0-9]{1,19}", value) or not 1 <= int(value) <= ID_MAX:
            self.fail(f"{value!r} is not an id; ids are whole numbers from 1 to {ID_MAX}", param, ctx)
        return int(value)


class Duration(click.ParamType[int]):
    """`10s`, `1m30s`, `250ms`; becomes milliseconds."""

    name = "duration"

    def __init__(self, longest_seconds: int = LONGEST_MS // 1000) -> None:
        self._longest_ms = longest_seconds * 1000

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read a duration."""
        if isinstance(value, int):
            return value
        try:
            return parse_duration(value, longest_ms=self._longest_ms)
        except InvalidInput as error:
            self.fail(error.problem, param, ctx)


class Time(click.ParamType[datetime]):
    """A time in the form of RFC 3339, with its zone; becomes an aware datetime."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read a time."""
        if isinstance(value, datetime):
            return value
        if not _RFC_3339.fullmatch(value):
            self.fail(f"{value!r} is not a time with its zone, such as 2030-01-31T18:30:00Z", param, ctx)
        try:
            return datetime.fromisoformat(value.upper())
        except ValueError as error:
            self.fail(f"{value!r} is not a time: {error}", param, ctx)


class Pair(click.ParamType[tuple[str, str]]):
    """`key=value`; becomes the two. The value may hold further `=`."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Read a pair."""
        if isinstance(value, tuple):
            return value
        key, separator, text = value.partition("=")
        if not separator or not key:
            self.fail(f"{value!r} is not of the form key=value", param, ctx)
        return key, text


class Words(click.ParamType[tuple[str, ...]]):
    """One or several of the words given, separated by `|` or commas; becomes a tuple."""

    name = "words"

    def __init__(self, words: Sequence[str]) -> None:
        self._words = tuple(words)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """Return the words for the help."""
        return "[" + "|".join(self._words) + "]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Read one or several words."""
        if isinstance(value, tuple):
            return value
        words = tuple(word.strip().lower() for word in _SEPARATORS.split(value))
        for word in words:
            if word not in self._words:
                self.fail(f"{word!r} is not known; allowed are {', '.join(self._words)}", param, ctx)
        return words

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        """Offer the words."""
        from click.shell_completion import CompletionItem

        return [CompletionItem(word) for word in self._words if word.startswith(incomplete)]


ID: Final = Id()


def flatten(groups: Sequence[Sequence[Value]]) -> tuple[Value, ...]:
    """Return the values of an option that was given several times, each once, in order."""
    return tuple(dict.fromkeys(value for group in groups for value in group))
