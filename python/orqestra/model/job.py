"""A job as it is asked for, and the rules that a request must keep."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec

from orqestra.model import limits
from orqestra.model.errors import InvalidInput
from orqestra.model.payload import parse_shell
from orqestra.model.retry import RetryPolicy, check_retry_policy

QUEUE_DEFAULT: Final = "default"
RETRIES_DEFAULT: Final = RetryPolicy()
GRACE_DEFAULT_MS: Final = int(limits.GRACE_DEFAULT_SECONDS * 1000)

_NAME: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._:/-]{{0,{limits.NAME_CHARS - 1}}}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_LABEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")


class JobType(StrEnum):
    """What a job is made of: a command, or nothing at all (for measuring)."""

    SHELL = "shell"
    NOOP = "noop"


@dataclass(frozen=True, kw_only=True, slots=True)
class JobSpec:
    """One job to be stored. Times are milliseconds; `at` and `delay_ms` exclude each other."""

    type: str = JobType.SHELL
    payload: bytes = b"{}"
    queue: str = QUEUE_DEFAULT
    priority: int = limits.PRIORITY_DEFAULT
    requires: tuple[str, ...] = ()
    retries: RetryPolicy = RETRIES_DEFAULT
    delay_ms: int = 0
    at: datetime | None = None
    timeout_ms: int = 0
    grace_ms: int = GRACE_DEFAULT_MS
    key: str | None = None
    tags: tuple[str, ...] = ()


def check_job(spec: JobSpec) -> JobSpec:
    """Return `spec` if it may be stored.

    Raises:
        InvalidInput: naming the field, the value and what is allowed.
    """
    check_type_and_payload(spec.type, spec.payload)
    return check_kind(spec)


def check_kind(spec: JobSpec) -> JobSpec:
    """Return `spec` if all of it but type and payload may be stored; raises InvalidInput as `check_job`."""
    check_name("queue", spec.queue)
    check_range("priority", spec.priority, limits.PRIORITY_MIN, limits.PRIORITY_MAX)
    check_retry_policy(spec.retries)
    check_range("delay_ms", spec.delay_ms, 0, limits.DELAY_MAX_SECONDS * 1000)
    check_range("timeout_ms", spec.timeout_ms, 0, limits.TIMEOUT_MAX_SECONDS * 1000)
    check_range("grace_ms", spec.grace_ms, 0, limits.GRACE_MAX_SECONDS * 1000)
    if spec.at is not None and spec.delay_ms:
        raise InvalidInput("at", "stands together with delay_ms; only one of them is allowed")
    if spec.key is not None:
        check_text("idempotency_key", spec.key, limits.KEY_CHARS)
    if len(spec.tags) > limits.TAGS:
        raise InvalidInput("tags", f"{len(spec.tags)} tags; at most {limits.TAGS} are allowed")
    for tag in spec.tags:
        check_text("tags", tag, limits.TAG_CHARS)
    return spec


def check_type_and_payload(job_type: str, payload: bytes) -> None:
    """Raise InvalidInput unless the type is known and the payload is one of its."""
    if len(payload) > limits.PAYLOAD_BYTES:
        raise InvalidInput("payload", f"{len(payload)} bytes; at most {limits.PAYLOAD_BYTES} are allowed")
    match job_type:
        case JobType.SHELL:
            parse_shell(payload)
        case JobType.NOOP:
            _check_json(payload)
        case _:
            known = ", ".join(JobType)
            raise InvalidInput("type", f"{job_type[: limits.NAME_CHARS]!r} is not known; allowed are {known}")


def check_name(name: str, value: str) -> None:
    """Raise InvalidInput unless `value` is a plain name."""
    if not _NAME.fullmatch(value):
        shown = value[: limits.NAME_CHARS]
        raise InvalidInput(
            name,
            f"{shown!r} is not a name; allowed are 1 to {limits.NAME_CHARS} letters, digits and ._:/- "
            "beginning with a letter or digit",
        )


def check_text(name: str, value: str, longest: int) -> None:
    """Raise InvalidInput unless `value` is 1 to `longest` characters, none of them a control character."""
    if not 1 <= len(value) <= longest:
        raise InvalidInput(name, f"{len(value)} characters; 1 to {longest} are allowed")
    if _CONTROL.search(value):
        raise InvalidInput(name, f"{value!r} holds a control character, which is not allowed")


def check_range(name: str, value: float, least: float, most: float) -> None:
    """Raise InvalidInput unless `least` <= value <= `most`."""
    if not least <= value <= most:
        raise InvalidInput(name, f"{value} is not allowed; it must be from {least} to {most}")


def label_list(labels: Mapping[str, str], name: str = "labels") -> tuple[str, ...]:
    """Return labels as sorted "key=value" texts; raises InvalidInput for one that is not allowed."""
    if len(labels) > limits.LABELS:
        raise InvalidInput(name, f"{len(labels)} labels; at most {limits.LABELS} are allowed")
    for key, value in labels.items():
        text = f"{key}={value}"
        if len(text) > limits.LABEL_CHARS or not _LABEL.fullmatch(key) or (value and not _LABEL.fullmatch(value)):
            shown = text[: limits.LABEL_CHARS]
            raise InvalidInput(
                name,
                f"{shown!r} is not a label; allowed is key=value with letters, digits and ._/-, "
                f"together at most {limits.LABEL_CHARS} characters",
            )
    return tuple(sorted(f"{key}={value}" for key, value in labels.items()))


def label_map(labels: Sequence[str]) -> dict[str, str]:
    """Return "key=value" texts as a mapping: the opposite of `label_list`."""
    return dict(label.split("=", 1) for label in labels)


def _check_json(payload: bytes) -> None:
    try:
        msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput("payload", f"not JSON: {error}") from error
