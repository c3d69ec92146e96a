"""How often a failed attempt is tried again, and how long each retry waits.

The delay before retry n (from 1) is uniform between 0 and min(cap, base * factor^(n - 1)): exponential
backoff with full jitter. The draw itself is made in Rust (`crates/dispatch/src/backoff.rs`).
"""

from dataclasses import dataclass
from typing import Final

from orqestra.model import limits
from orqestra.model.duration import format_duration
from orqestra.model.errors import InvalidInput

DELAY_MAX_MS: Final = limits.BACKOFF_CAP_MAX_SECONDS * 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """The retries of a job: `max_retries` attempts after the first, and their backoff."""

    max_retries: int = 0
    base_ms: int = int(limits.BACKOFF_BASE_SECONDS * 1000)
    factor: float = limits.BACKOFF_FACTOR
    cap_ms: int = int(limits.BACKOFF_CAP_SECONDS * 1000)


def check_retry_policy(policy: RetryPolicy) -> RetryPolicy:
    """Return `policy` if each of its values is allowed.

    Raises:
        InvalidInput: whose field is the name of the attribute that is not.
    """
    if not 0 <= policy.max_retries <= limits.RETRIES_MAX:
        raise InvalidInput("max_retries", f"{policy.max_retries}; 0 to {limits.RETRIES_MAX} are allowed")
    # Written so that NaN is refused too.
    if not 1 <= policy.factor <= limits.BACKOFF_FACTOR_MAX:
        raise InvalidInput("factor", f"{policy.factor}; 1 to {limits.BACKOFF_FACTOR_MAX:g} is allowed")
    for field, delay_ms in (("base_ms", policy.base_ms), ("cap_ms", policy.cap_ms)):
        if not 0 <= delay_ms <= DELAY_MAX_MS:
            written = f"{format_duration(delay_ms)}; 0s to {format_duration(DELAY_MAX_MS)} is allowed"
            raise InvalidInput(field, written)
    return policy
