"""From a job's specification to protobuf, checked on the way by the rules that the server has too."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from orqestra.model import limits
from orqestra.model.errors import InvalidInput
from orqestra.model.job import JobSpec, check_job, label_map
from orqestra.v1 import jobs_pb2


def new_key() -> str:
    """Return an idempotency key that nobody else has."""
    return str(uuid.uuid4())


def shell_payload(
    command: str | Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    stdin: str | None = None,
) -> bytes:
    """Return the payload of a `shell` job: a text is run by /bin/sh -c, a sequence as it is, without a shell.

    Raises InvalidInput for text that is not Unicode (a lone surrogate); the rest is checked at submit.
    """
    what = {"command": command} if isinstance(command, str) else {"argv": list(command)}
    more = {"env": env or None, "cwd": cwd, "stdin": stdin}
    try:
        return msgspec.json.encode(what | {name: value for name, value in more.items() if value is not None})
    except UnicodeEncodeError as error:
        raise InvalidInput("payload", f"{error.object!r} is not valid UTF-8") from None


def encode_job(spec: JobSpec) -> jobs_pb2.JobSpec:
    """Return the message for a job; raises InvalidInput with the field, the value and what is allowed."""
    check_job(spec)
    _check_unicode(spec)
    message = jobs_pb2.JobSpec(
        type=spec.type,
        payload=spec.payload,
        queue=spec.queue,
        priority=spec.priority,
        labels=label_map(spec.requires),
        max_retries=spec.retries.max_retries,
        backoff=_backoff(spec),
        delay_ms=spec.delay_ms,
        timeout_ms=spec.timeout_ms,
        grace_ms=spec.grace_ms,
        idempotency_key=spec.key or "",
        tags=spec.tags,
    )
    if spec.at is not None:
        message.at.FromDatetime(_checked_time(spec.at))
    return message


def _check_unicode(spec: JobSpec) -> None:
    """Refuse what protobuf can't carry: text with lone surrogates, such as bytes of no encoding become."""
    for field, text in (("idempotency_key", spec.key or ""), *(("tags", tag) for tag in spec.tags)):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidInput(field, f"{text!r} is not valid UTF-8") from None


def _backoff(spec: JobSpec) -> jobs_pb2.Backoff:
    return jobs_pb2.Backoff(base_ms=spec.retries.base_ms, factor=spec.retries.factor, cap_ms=spec.retries.cap_ms)


def _checked_time(at: datetime) -> datetime:
    if at.tzinfo is None:
        raise InvalidInput("at", f"{at.isoformat()} has no zone; write it like {at.isoformat()}Z")
    if at - datetime.now(at.tzinfo) > timedelta(seconds=limits.DELAY_MAX_SECONDS):
        days = limits.DELAY_MAX_SECONDS // (24 * 3600)
        raise InvalidInput("at", f"{at.isoformat()} is too far ahead; at most {days} days are allowed")
    return at
