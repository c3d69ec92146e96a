"""Backoff with exact fractions."""

from fractions import Fraction
from math import floor

WORD = 2**64


def ceiling(base_ms: int, factor: float, cap_ms: int, attempt: int) -> int:
    """Multiply step by step, until the cap is reached."""
    value = Fraction(base_ms)
    for _ in range(attempt - 1):
        if value >= cap_ms:
            break
        value *= Fraction(factor)
    return min(cap_ms, floor(value))


def jittered(ceiling_ms: int, seed: int, jitter: str = "full") -> int:
    """A uniform integer up to the ceiling, from where the jitter begins: the high word of a 128-bit product."""
    floor_ms = {"full": 0, "equal": ceiling_ms // 2, "none": ceiling_ms}[jitter]
    return floor_ms + splitmix64(seed % WORD) * (ceiling_ms - floor_ms + 1) // WORD


def splitmix64(seed: int) -> int:
    mixed = (seed + 0x9E3779B97F4A7C15) % WORD
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB % WORD
    return mixed ^ (mixed >> 31)
