"""What a job may be: each bad value is refused by the name of its field, at the very limit."""

from datetime import UTC, datetime
from typing import Any

import pytest

from orqestra.model import limits
from orqestra.model.errors import InvalidInput
from orqestra.model.job import JobSpec, check_job, label_list, label_map
from orqestra.model.retry import RetryPolicy

NOW = datetime(2026, 1, 1, tzinfo=UTC)

GOOD: list[dict[str, Any]] = [
    {},
    {"payload": b'"' + b"x" * (limits.PAYLOAD_BYTES - 2) + b'"'},
    {"queue": "a" * limits.NAME_CHARS},
    {"queue": "A9._:/-"},
    {"priority": 0},
    {"priority": 9},
    {"retries": RetryPolicy(max_retries=limits.RETRIES_MAX)},
    {"delay_ms": limits.DELAY_MAX_SECONDS * 1000},
    {"timeout_ms": limits.TIMEOUT_MAX_SECONDS * 1000},
    {"grace_ms": 0},
    {"grace_ms": limits.GRACE_MAX_SECONDS * 1000},
    {"at": NOW},
    {"key": "k" * limits.KEY_CHARS},
    {"key": "ключ 鍵 🔑"},
    {"tags": ("t" * limits.TAG_CHARS,) * limits.TAGS},
]

BAD: list[tuple[dict[str, Any], str]] = [
    ({"type": "python"}, "type"),
    ({"payload": b"x" * (limits.PAYLOAD_BYTES + 1)}, "payload"),
    ({"payload": b"{"}, "payload"),
    ({"payload": b"[" * 100_000}, "payload"),
    ({"queue": ""}, "queue"),
    ({"queue": "a" * (limits.NAME_CHARS + 1)}, "queue"),
    ({"queue": "-a"}, "queue"),
    ({"queue": "a b"}, "queue"),
    ({"queue": "a\n"}, "queue"),
    ({"queue": "é"}, "queue"),
    ({"priority": -1}, "priority"),
    ({"priority": 10}, "priority"),
    ({"retries": RetryPolicy(max_retries=limits.RETRIES_MAX + 1)}, "max_retries"),
    ({"retries": RetryPolicy(factor=float("nan"))}, "factor"),
    ({"delay_ms": -1}, "delay_ms"),
    ({"delay_ms": limits.DELAY_MAX_SECONDS * 1000 + 1}, "delay_ms"),
    ({"timeout_ms": -1}, "timeout_ms"),
    ({"timeout_ms": limits.TIMEOUT_MAX_SECONDS * 1000 + 1}, "timeout_ms"),
    ({"grace_ms": -1}, "grace_ms"),
    ({"at": NOW, "delay_ms": 1}, "at"),
    ({"key": ""}, "idempotency_key"),
    ({"key": "k" * (limits.KEY_CHARS + 1)}, "idempotency_key"),
    ({"key": "a\0b"}, "idempotency_key"),
    ({"tags": ("t",) * (limits.TAGS + 1)}, "tags"),
    ({"tags": ("",)}, "tags"),
    ({"tags": ("a\x1fb",)}, "tags"),
    ({"tags": ("\x7f",)}, "tags"),
]

BAD_LABELS: list[dict[str, str]] = [
    {"": "x"},
    {"a b": "x"},
    {"a=b": "x"},
    {"a": "x y"},
    {"a": "-x"},
    {"a": "b\n"},
    {"a": "x" * limits.LABEL_CHARS},
    {str(number): "x" for number in range(limits.LABELS + 1)},
]


@pytest.mark.parametrize("about", GOOD, ids=lambda about: next(iter(about), "defaults"))
def test_what_keeps_to_the_limits_is_let_in_unchanged(about: dict[str, Any]) -> None:
    spec = JobSpec(**{"type": "noop", **about})

    assert check_job(spec) is spec


@pytest.mark.parametrize(("about", "field"), BAD)
def test_what_does_not_is_refused_by_name(about: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_job(JobSpec(**{"type": "noop", **about}))

    assert refused.value.field == field
    assert len(str(refused.value)) < 1000


def test_labels_are_sorted_and_come_back() -> None:
    labels = {"zone": "eu", "arch": "x86/64", "empty": ""}

    assert label_list(labels) == ("arch=x86/64", "empty=", "zone=eu")
    assert label_map(label_list(labels)) == labels


@pytest.mark.parametrize("labels", BAD_LABELS, ids=lambda labels: repr(labels)[:20])
def test_a_bad_label_is_refused(labels: dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match="requires"):
        label_list(labels, "requires")
