"""From a job's specification to protobuf, checked on the way by the rules that the server has too."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeAlias

import msgspec

from orqestra._dispatch import wire
from orqestra.model.errors import InvalidInput
from orqestra.model.job import JobSpec, check_kind, check_text, check_type_and_payload, label_map
from orqestra.model.limits import DELAY_MAX_SECONDS, KEY_CHARS
from orqestra.model.payload import ResourceLimits
from orqestra.model.retry_rules import Jitter
from orqestra.v1 import jobs_pb2

# How many shapes of jobs are remembered; each takes about a kilobyte.
SHAPES_KNOWN: Final = 1000

Submits: TypeAlias = (
    type[jobs_pb2.SubmitRequest] | type[jobs_pb2.SubmitBatchRequest] | type[jobs_pb2.SubmitStreamRequest]
)


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


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedJob:
    """A job that was checked: its shape, which is the rest of its message, and what is its own."""

    shape: bytes
    payload: bytes
    key: str | None

    @property
    def bytes(self) -> int:
        """About how many bytes it takes in a request."""
        return len(self.shape) + len(self.payload)


class JobEncoder:
    """Checks and encodes jobs. What jobs have in common, their shape, is looked at once."""

    def __init__(self) -> None:
        self._shapes: dict[tuple[object, ...], bytes] = {}

    def encode(self, spec: JobSpec) -> EncodedJob:
        """Return a job that may be sent; raises InvalidInput with the field, the value and what is allowed."""
        check_type_and_payload(spec.type, spec.payload)
        if spec.key is not None:
            check_text("idempotency_key", spec.key, KEY_CHARS)
            _check_unicode("idempotency_key", spec.key)
        return EncodedJob(shape=self._shape(spec), payload=spec.payload, key=spec.key)

    def encode_all(self, specs: Iterable[JobSpec]) -> list[EncodedJob]:
        """Return jobs of a batch; the error says which of them by its index."""
        jobs = []
        for index, spec in enumerate(specs):
            try:
                jobs.append(self.encode(spec))
            except InvalidInput as error:
                raise InvalidInput(f"jobs[{index}].{error.field}", error.problem) from None
        return jobs

    def _shape(self, spec: JobSpec) -> bytes:
        if spec.at is not None:
            return encode_shape(spec).SerializeToString()
        name = (
            *(spec.type, spec.queue, spec.priority, tuple(spec.requires), spec.retries),
            *(spec.delay_ms, spec.timeout_ms, spec.grace_ms, tuple(spec.tags)),
        )
        shape = self._shapes.get(name)
        if shape is None:
            if len(self._shapes) == SHAPES_KNOWN:
                self._shapes.clear()
            shape = self._shapes[name] = encode_shape(spec).SerializeToString()
        return shape


def request_of(kind: Submits, jobs: Sequence[EncodedJob]) -> bytes:
    """Return the request of that kind with these jobs, encoded."""
    name = "job" if kind is jobs_pb2.SubmitRequest else "jobs"
    return wire.job_specs(
        kind.DESCRIPTOR.fields_by_name[name].number,
        [job.shape for job in jobs],
        [job.payload for job in jobs],
        [job.key for job in jobs],
    )


def encode_shape(spec: JobSpec) -> jobs_pb2.JobSpec:
    """Return the message for all of a job but payload and key; raises InvalidInput as `JobEncoder.encode`."""
    check_kind(spec)
    for tag in spec.tags:
        _check_unicode("tags", tag)
    retries = spec.retries
    message = jobs_pb2.JobSpec(
        type=spec.type,
        queue=spec.queue,
        priority=spec.priority,
        labels=label_map(spec.requires),
        max_retries=retries.max_retries,
        retry=jobs_pb2.RetryRules(on=retries.on, never=retries.never) if retries.on or retries.never else None,
        backoff=_backoff(spec),
        delay_ms=spec.delay_ms,
        timeout_ms=spec.timeout_ms,
        grace_ms=spec.grace_ms,
        tags=spec.tags,
    )
    if spec.at is not None:
        message.at.FromDatetime(_checked_time(spec.at))
    return message


def _check_unicode(field: str, text: str) -> None:
    """Refuse what protobuf can't carry: text with lone surrogates, such as bytes of no encoding become."""
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
