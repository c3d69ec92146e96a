"""From a job's specification to protobuf, checked on the way by the rules that the server has too."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from orqestra.model.errors import InvalidInput
from orqestra.model.job import JobSpec, check_job, label_map
from orqestra.model.limits import DELAY_MAX_SECONDS
from orqestra.model.payload import ResourceLimits
from orqestra.model.retry_rules import Jitter
from orqestra.v1 import jobs_pb2


def new_key() -> str:
    """Return an idempotency key that nobody else has."""
    return str(uuid.uuid4())


def shell_payload(  # noqa: PLR0913  one keyword for each field of the payload, as the payload has them
    command: str | Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    stdin: str | None = None,
    nice: int | None = None,
    run_as: str | None = None,
    allow_background: bool = False,
    limits: ResourceLimits | Mapping[str, int] | None = None,
) -> bytes:
    """Return the payload of a `shell` job: a text is run by /bin/sh -c, a sequence as it is, without a shell.

    `run_as` is "user" or "user:group"; with `allow_background` what the command leaves running is not ended with it.

    Raises InvalidInput for text that is not Unicode (a lone surrogate); the rest is checked at submit.
    """
    what = {"command": command} if isinstance(command, str) else {"argv": list(command)}
    more: dict[str, object] = {"env": env or None, "cwd": cwd, "stdin": stdin, "nice": nice, "run_as": run_as}
    more |= {"allow_background": allow_background or None, "limits": limits or None}
    try:
        return msgspec.json.encode(what | {name: value for name, value in more.items() if value is not None})
    except UnicodeEncodeError as error:
        raise InvalidInput("payload", f"{error.object!r} is not valid UTF-8") from None


def encode_job(spec: JobSpec) -> jobs_pb2.JobSpec:
    """Return the message for a job; raises InvalidInput with the field, the value and what is allowed."""
    check_job(spec)
    _check_unicode(spec)
    retries = spec.retries
    message = jobs_pb2.JobSpec(
        type=spec.type,
        payload=spec.payload,
        queue=spec.queue,
        priority=spec.priority,
        labels=label_map(spec.requires),
        max_retries=retries.max_retries,
        retry=jobs_pb2.RetryRules(on=retries.on, never=retries.never) if retries.on or retries.never else None,
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
    retries = spec.retries
    # Left out where it is usual: a batch of jobs is smaller by two bytes each.
    jitter = None if retries.jitter is Jitter.FULL else getattr(jobs_pb2, f"JITTER_{retries.jitter.name}")
    return jobs_pb2.Backoff(base_ms=retries.base_ms, factor=retries.factor, cap_ms=retries.cap_ms, jitter=jitter)


def _checked_time(at: datetime) -> datetime:
    if at.tzinfo is None:
        raise InvalidInput("at", f"{at.isoformat()} has no zone; write it like {at.isoformat()}Z")
    if at - datetime.now(at.tzinfo) > timedelta(seconds=DELAY_MAX_SECONDS):
        days = DELAY_MAX_SECONDS // (24 * 3600)
        raise InvalidInput("at", f"{at.isoformat()} is too far ahead; at most {days} days are allowed")
    return at
