"""How often a failed attempt is tried again, after which failures, and how long each retry waits.

The delay before retry n (from 1) is drawn up to min(cap, base * factor^(n - 1)): exponential backoff, uniform
from 0 with full jitter, from half of it with equal jitter, just that with none. The draw itself is made in
Rust (`crates/dispatch/src/backoff.rs`). Which failures are retried: `model.retry_rules`.
"""

from dataclasses import dataclass
from typing import Final

from orqestra.model import limits
from orqestra.model.duration import format_duration
from orqestra.model.errors import InvalidInput
from orqestra.model.retry_rules import Jitter, RetryRules, format_rules, parse_words

DELAY_MAX_MS: Final = limits.BACKOFF_CAP_MAX_SECONDS * 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """The retries of a job: `max_retries` attempts after the first, what they are for, and their backoff.

    Without `on` every failure is retried, else those that its words match (`model.retry_rules`); what `never`
    matches is not.
    """

    max_retries: int = 0
    base_ms: int = int(limits.BACKOFF_BASE_SECONDS * 1000)
    factor: float = limits.BACKOFF_FACTOR
    cap_ms: int = int(limits.BACKOFF_CAP_SECONDS * 1000)
    on: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    jitter: Jitter = Jitter.FULL

    def rules(self) -> str | None:
        """Return the text of the rules that a row keeps, None for a policy without any; checked before."""
        if not self.on and not self.never and self.jitter is Jitter.FULL:
            return None
        on, never = parse_words("retry.on", self.on), parse_words("retry.never", self.never)
        return format_rules(RetryRules(on=on, never=never, jitter=self.jitter))


def check_retry_policy(policy: RetryPolicy) -> RetryPolicy:
    """Return `policy` if each of its values is allowed.

    Raises:
        InvalidInput: whose field is the name of the attribute that is not, of `on` and `never` after "retry.".
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
    if policy.on or policy.never:
        parse_words("retry.on", policy.on)
        parse_words("retry.never", policy.never)
    return policy
