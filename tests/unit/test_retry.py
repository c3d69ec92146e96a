"""A retry policy within its limits is let through, any other is refused by the name of its field."""

import pytest

from orqestra.model import limits
from orqestra.model.errors import InvalidInput
from orqestra.model.retry import RetryPolicy, check_retry_policy


def test_a_policy_within_the_limits_is_let_through() -> None:
    policy = RetryPolicy(max_retries=limits.RETRIES_MAX, base_ms=0, factor=1.0, cap_ms=0)

    assert check_retry_policy(policy) is policy
    assert check_retry_policy(RetryPolicy()) == RetryPolicy(max_retries=0, base_ms=1000, factor=2.0, cap_ms=300_000)


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        (RetryPolicy(max_retries=-1), "max_retries"),
        (RetryPolicy(max_retries=limits.RETRIES_MAX + 1), "max_retries"),
        (RetryPolicy(factor=0.99), "factor"),
        (RetryPolicy(factor=float("nan")), "factor"),
        (RetryPolicy(factor=float("inf")), "factor"),
        (RetryPolicy(base_ms=-1), "base_ms"),
        (RetryPolicy(cap_ms=24 * 3600 * 1000 + 1), "cap_ms"),
        (RetryPolicy(on=("3", "nope")), "retry.on"),
        (RetryPolicy(never=("20-10",)), "retry.never"),
    ],
)
def test_a_retry_policy_out_of_range_is_refused(policy: RetryPolicy, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_retry_policy(policy)

    assert caught.value.field == field
