"""How a step is tried again, in either of two spellings.

retry: {max: 3, on: [75, 10-20, timeout], never: [2], backoff: {base: 1s, factor: 2, cap: 5m, jitter: full}}
retries: 3, or {max: 3, base: 1s, factor: 2, cap: 5m}
"""

from typing import Final

import yaml

from orqestra.engine.yaml_document import elements, fields, kind, refusal, shown, text, written
from orqestra.engine.yaml_values import Values, decimal, duration, given, whole
from orqestra.model import limits
from orqestra.model.errors import InvalidInput
from orqestra.model.retry import DELAY_MAX_MS, RetryPolicy, check_retry_policy
from orqestra.model.retry_rules import Jitter

RETRY_KEYS: Final = ("max", "on", "never", "backoff")
BACKOFF_KEYS: Final = ("base", "factor", "cap", "jitter")
RETRIES_KEYS: Final = ("max", "base", "factor", "cap")
# What the check of a policy names, and the key that sets it.
KEYS: Final = {
    "max_retries": "max",
    "base_ms": "base",
    "factor": "factor",
    "cap_ms": "cap",
    "retry.on": "on",
    "retry.never": "never",
}
STANDARD: Final = RetryPolicy()


def retry_policy(step: Values) -> RetryPolicy:
    """Return the policy of a step; none is no retries."""
    if "retry" in step and "retries" in step:
        raise refusal(step["retry"], "retry and retries say the same in two spellings; one of them is allowed")
    if "retry" in step:
        return _retry(step["retry"])
    return given(step, "retries", _retries, STANDARD)


def _retry(node: yaml.Node) -> RetryPolicy:
    values = fields(node, "retry", RETRY_KEYS)
    backoff = fields(values["backoff"], "backoff", BACKOFF_KEYS) if "backoff" in values else {}
    policy = RetryPolicy(
        max_retries=_max(node, "retry", values),
        base_ms=duration(backoff, "base", DELAY_MAX_MS, default_ms=STANDARD.base_ms),
        factor=given(backoff, "factor", _factor, STANDARD.factor),
        cap_ms=duration(backoff, "cap", DELAY_MAX_MS, default_ms=STANDARD.cap_ms),
        on=given(values, "on", lambda words: _words(words, "on"), ()),
        never=given(values, "never", lambda words: _words(words, "never"), ()),
        jitter=given(backoff, "jitter", _jitter, STANDARD.jitter),
    )
    return _checked(policy, node, {**values, **backoff})


def _retries(node: yaml.Node) -> RetryPolicy:
    if isinstance(node, yaml.ScalarNode):
        return RetryPolicy(max_retries=whole(node, "retries", 0, limits.RETRIES_MAX))
    values = fields(node, "retries", RETRIES_KEYS)
    policy = RetryPolicy(
        max_retries=_max(node, "retries", values),
        base_ms=duration(values, "base", DELAY_MAX_MS, default_ms=STANDARD.base_ms),
        factor=given(values, "factor", _factor, STANDARD.factor),
        cap_ms=duration(values, "cap", DELAY_MAX_MS, default_ms=STANDARD.cap_ms),
    )
    return _checked(policy, node, values)


def _max(node: yaml.Node, what: str, values: Values) -> int:
    if "max" not in values:
        raise refusal(node, f"{what}: max is missing, the number of retries")
    return whole(values["max"], "max", 0, limits.RETRIES_MAX)


def _factor(node: yaml.Node) -> float:
    return decimal(node, "factor")


def _jitter(node: yaml.Node) -> Jitter:
    word = text(node, "jitter")
    if word not in list(Jitter):
        raise refusal(node, f"jitter: {shown(word)} is not known; allowed are {', '.join(Jitter)}")
    return Jitter(word)


def _words(node: yaml.Node, what: str) -> tuple[str, ...]:
    # A single word is a list of one, a plain 3 is the code 3.
    parts = elements(node, what) if kind(node) in {"a list", "a mapping"} else [node]
    return tuple(written(part, what) for part in parts)


def _checked(policy: RetryPolicy, node: yaml.Node, values: Values) -> RetryPolicy:
    try:
        return check_retry_policy(policy)
    except InvalidInput as error:
        key = KEYS[error.field]
        raise refusal(values.get(key, node), f"{key}: {error.problem}") from error
