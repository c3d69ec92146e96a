"""A duration is read exactly, refused clearly, and read back as it was written."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orqestra.model.duration import LONGEST_MS, format_duration, parse_duration
from orqestra.model.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("10s", 10_000),
        ("1m30s", 90_000),
        ("250ms", 250),
        ("2h", 7_200_000),
        ("1.5s", 1500),
        ("10", 10_000),
        ("0", 0),
        ("0.001", 1),
        ("0.1s", 100),
        (" 1d2h3m4s5ms ", 93_784_005),
        ("366d", LONGEST_MS),
    ],
)
def test_a_duration_is_read_exactly(text: str, milliseconds: int) -> None:
    assert parse_duration(text) == milliseconds


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("-3s", "is negative"),
        ("nan", "is not a duration"),
        ("inf", "is not a duration"),
        ("", "is not a duration"),
        ("s", "is not a duration"),
        ("30s1m", "is not a duration"),
        ("1m1m", "is not a duration"),
        ("1.s", "is not a duration"),
        ("\u0661s", "is not a duration"),
        ("5 minutes", "has the unknown unit 'minutes'; known are d, h, m, s, ms"),
        ("1e3", "has the unknown unit 'e'"),
        ("367d", "is too long; at most 366d is allowed"),
        ("9" * 60, "is too long; at most 366d is allowed"),
        ("9" * 100_000, "is no duration"),
        ("0.5ms", "is finer than a millisecond"),
    ],
)
def test_a_text_that_is_no_duration_is_refused(text: str, problem: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_duration(text, field="delay")

    assert caught.value.field == "delay"
    assert problem in caught.value.problem
    assert len(caught.value.problem) < 200


@settings(deadline=None)  # pytest's timeout bounds it
@given(st.integers(0, LONGEST_MS))
@example(999)
@example(1000)
@example(59_999)
def test_a_duration_written_is_read_back(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds)) == milliseconds


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0s"),
        (250, "250ms"),
        (1500, "1.5s"),
        (90_000, "1m30s"),
        (90_061_001, "1d1h1m1.001s"),
        (-1500, "-1.5s"),
    ],
)
def test_a_duration_is_written_short(milliseconds: int, text: str) -> None:
    assert format_duration(milliseconds) == text
