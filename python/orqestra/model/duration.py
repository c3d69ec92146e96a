"""Lengths of time as people write them: `10s`, `1m30s`, `250ms`, `1.5h`, and `10` for ten seconds.

Read to whole milliseconds and exactly: no float is on the way, so `0.1s` is 100 ms.
"""

import re
from fractions import Fraction
from typing import Final

from orqestra.model import limits
from orqestra.model.errors import InvalidInput

# From long to short: the order in which the parts of a duration are written.
UNIT_MS: Final = {"d": 24 * 3600 * 1000, "h": 3600 * 1000, "m": 60 * 1000, "s": 1000, "ms": 1}
LONGEST_MS: Final = limits.DELAY_MAX_SECONDS * 1000

_NUMBER: Final = r"[0-9]+(?:\.[0-9]+)?"
_SECONDS: Final = re.compile(_NUMBER)
_PARTS: Final = re.compile("".join(rf"(?:({_NUMBER}){unit})?" for unit in UNIT_MS))
_UNIT: Final = re.compile(rf"{_NUMBER}([^0-9.]+)")
_TEXT_CHARS: Final = 64  # keeps a wall of digits out of the arithmetic and out of the message


def parse_duration(text: str, *, field: str = "duration", longest_ms: int = LONGEST_MS) -> int:
    """Return the milliseconds of a duration between 0 and `longest_ms`.

    The parts go from long to short, each unit at most once; a bare number counts seconds.

    Raises:
        InvalidInput: naming `field`, the text and what is allowed.
    """
    written = text.strip()
    if len(written) > _TEXT_CHARS:
        raise InvalidInput(field, f"{written[:_TEXT_CHARS]!r}... is no duration; write it like 30s or 1m30s")
    milliseconds = _milliseconds(written)
    if milliseconds is None:
        raise InvalidInput(field, f"{text!r} {_objection(written)}")
    if milliseconds > longest_ms:
        raise InvalidInput(field, f"{text!r} is too long; at most {format_duration(longest_ms)} is allowed")
    if milliseconds.denominator != 1:
        raise InvalidInput(field, f"{text!r} is finer than a millisecond, the finest there is")
    return int(milliseconds)


def format_duration(milliseconds: int) -> str:
    """Return a duration as short as it can be written: `1m30s`, `1.5s`, `250ms`; `0s` for none.

    `parse_duration` gives back the same milliseconds.
    """
    if milliseconds < 0:
        return f"-{format_duration(-milliseconds)}"
    if 0 < milliseconds < UNIT_MS["s"]:
        return f"{milliseconds}ms"
    parts = []
    rest = milliseconds
    for unit in ("d", "h", "m"):
        count, rest = divmod(rest, UNIT_MS[unit])
        if count:
            parts.append(f"{count}{unit}")
    if rest or not parts:
        whole, thousandths = divmod(rest, 1000)
        parts.append(f"{whole}.{thousandths:03d}".rstrip("0").rstrip(".") + "s")
    return "".join(parts)


def _milliseconds(written: str) -> Fraction | None:
    if _SECONDS.fullmatch(written):
        return Fraction(written) * UNIT_MS["s"]
    match = _PARTS.fullmatch(written)
    if not written or match is None:
        return None
    return sum(
        (Fraction(part) * unit for part, unit in zip(match.groups(), UNIT_MS.values(), strict=True) if part),
        Fraction(0),
    )


def _objection(written: str) -> str:
    """Say what is wrong with a text that is no duration."""
    if written.startswith("-"):
        return "is negative; a duration is 0 or more"
    unknown = [unit for unit in _UNIT.findall(written) if unit.strip() not in UNIT_MS]
    if unknown:
        return f"has the unknown unit {unknown[0].strip()!r}; known are {', '.join(UNIT_MS)}"
    return "is not a duration; write it like 250ms, 30s, 1m30s or 2h (a bare number counts seconds)"
