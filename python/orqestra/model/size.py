"""Sizes as people write them: `512MiB`, `1GiB`, `1.5GiB`, and `4096` for as many bytes. Read exactly."""

import re
from fractions import Fraction
from typing import Final

from orqestra.model.errors import InvalidInput

UNIT_BYTES: Final = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}

_SIZE: Final = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?) ?([A-Za-z]*)")
_SHOWN_CHARS: Final = 40


def parse_size(text: str, *, field: str = "size") -> int:
    """Return the bytes of a size; a bare number counts bytes.

    Raises:
        InvalidInput: naming `field`, the text and what is allowed.
    """
    match = _SIZE.fullmatch(text.strip())
    shown = repr(text[:_SHOWN_CHARS])
    if match is None:
        raise InvalidInput(field, f"{shown} is not a size; write it like 512MiB or 1GiB (a bare number counts bytes)")
    number, unit = match.groups()
    if unit and unit not in UNIT_BYTES:
        raise InvalidInput(
            field, f"{shown} has the unknown unit {unit[:_SHOWN_CHARS]!r}; known are {', '.join(UNIT_BYTES)}"
        )
    size = Fraction(number) * UNIT_BYTES[unit or "B"]
    if size.denominator != 1:
        raise InvalidInput(field, f"{shown} is not a whole number of bytes")
    return int(size)
