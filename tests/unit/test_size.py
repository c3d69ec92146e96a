"""Sizes as people write them."""

import pytest

from orqestra.model.errors import InvalidInput
from orqestra.model.size import parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("4096", 4096), ("7B", 7), ("512MiB", 512 * 1024**2), (" 1.5 GiB ", 3 * 512 * 1024**2), ("2TiB", 2**41)],
)
def test_a_size_is_read_exactly(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not a size; write it like 512MiB or 1GiB"),
        ("-1", "'-1' is not a size"),
        ("1e9", "'1e9' is not a size"),
        ("9" * 19, "is not a size"),
        ("1GB", "'1GB' has the unknown unit 'GB'; known are B, KiB, MiB, GiB, TiB"),
        ("1m", "'1m' has the unknown unit 'm'"),
        ("0.3KiB", "'0.3KiB' is not a whole number of bytes"),
    ],
)
def test_what_is_no_size_is_refused(text: str, problem: str) -> None:
    with pytest.raises(InvalidInput, match=r"^limit: ") as refused:
        parse_size(text, field="limit")

    assert problem in refused.value.problem
