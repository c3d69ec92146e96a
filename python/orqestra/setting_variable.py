"""Where the text of a setting comes from, and how it is checked."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

from orqestra.model.errors import BadSettings
from orqestra.setting_kinds import Kind


@dataclass(frozen=True, kw_only=True)
class Variable:
    """Where a setting is read from, and all that the documentation says of it."""

    name: str
    kind: Kind
    default: str | Callable[[Mapping[str, str]], str]
    """The text that counts when none is given, or how to find it from the environment."""
    why: str
    """What it does, and why this default."""
    unit: str = ""
    shown_default: str = ""
    """Stands in the documentation where the default depends on the machine."""
    show: Callable[[str], str] = repr
    """How a refused value appears in the message; secrets do not."""


def read_from(**declaration: Any) -> dict[str, Variable]:
    """Return the metadata that makes a field a setting."""
    return {"variable": Variable(**declaration)}


def checked_value(
    variable: Variable, sources: Iterable[tuple[str, Mapping[str, str]]], environ: Mapping[str, str]
) -> object:
    """Return the checked value of the first source that gives one."""
    for origin, texts in sources:
        if given := texts.get(variable.name, ""):
            return _parse(variable, given, origin)
    default = variable.default if isinstance(variable.default, str) else variable.default(environ)
    return _parse(variable, default, "the default")


def _parse(variable: Variable, text: str, origin: str) -> object:
    try:
        return variable.kind.parse(text)
    except (ValueError, RuntimeError):  # RuntimeError: `~` in a path, and no home directory
        raise BadSettings(
            f"{variable.name}={variable.show(text)} ({origin}) is not allowed; allowed: {variable.kind.allowed}"
        ) from None


def text(value: object) -> str:
    """Return a value as it would be written in the environment; empty: not given."""
    match value:
        case None:
            return ""
        case bool():
            return str(int(value))
        case _:
            return str(value)


def read_dotenv(path: Path | None) -> dict[str, str]:
    """Return what a `.env` file says.

    Raises:
        BadSettings: it can't be read.
    """
    if path is None:
        return {}
    try:
        found = dotenv_values(path, interpolate=False)
    except (OSError, UnicodeDecodeError) as error:
        raise BadSettings(f"{path} can't be read: {error}") from None
    return {name: text for name, text in found.items() if text}
