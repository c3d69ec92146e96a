"""What the options of `submit` say, and the job that it makes."""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import click

from orqestra.client import Jitter, JobSpec, JobType, RetryPolicy, label_list, new_key, shell_payload
from orqestra.model import limits
from orqestra.model.errors import InvalidInput
from orqestra.model.payload import parse_limit

# What no program's name is likely to hold and /bin/sh would act on.
SHELL_SIGNS: Final = re.compile(r"[\s|&;<>()$`\\\"'*?\[\]#~=%!{}]")
FROM_FILE: Final = "@"
STDIN: Final = "-"
OF_COMMAND: Final = "--env, --cwd, --stdin, --nice, --run-as, --allow-background, --limit"


@dataclass(frozen=True, kw_only=True)
class Given:
    """What the options and the words after them say. Durations are milliseconds."""

    command: tuple[str, ...]
    job_type: str
    payload: str | None
    env: tuple[tuple[str, str], ...]
    cwd: str | None
    stdin: str | None
    nice: int | None
    run_as: str | None
    allow_background: bool
    limit: tuple[tuple[str, str], ...]
    queue: str
    priority: int
    label: tuple[tuple[str, str], ...]
    tag: tuple[str, ...]
    retries: int
    backoff_base: int
    backoff_factor: float
    backoff_cap: int
    backoff_jitter: str
    retry_on: tuple[str, ...]
    retry_never: tuple[str, ...]
    delay: int
    at: datetime | None
    timeout: int
    grace: int
    key: str | None
    wait: bool


def spec_of(given: Given) -> JobSpec:
    """Return the job that was asked for; raises click.UsageError for options that exclude each other."""
    return JobSpec(
        type=given.job_type,
        payload=_payload(given),
        queue=given.queue,
        priority=given.priority,
        requires=label_list(dict(given.label)),
        retries=_retries(given),
        delay_ms=given.delay,
        at=given.at,
        timeout_ms=given.timeout,
        grace_ms=given.grace,
        key=new_key() if given.key is None else given.key,
        tags=given.tag,
    )


def _retries(given: Given) -> RetryPolicy:
    on, never = _words(given.retry_on), _words(given.retry_never)
    if (on or never) and not given.retries:
        raise click.UsageError("--retry-on and --retry-never choose among --retries, of which there are none.")
    if given.backoff_jitter not in list(Jitter):
        raise InvalidInput("jitter", f"{given.backoff_jitter!r} is not known; allowed are {', '.join(Jitter)}")
    return RetryPolicy(
        max_retries=given.retries,
        base_ms=given.backoff_base,
        factor=given.backoff_factor,
        cap_ms=given.backoff_cap,
        on=on,
        never=never,
        jitter=Jitter(given.backoff_jitter),
    )


def _words(lists: Sequence[str]) -> tuple[str, ...]:
    return tuple(word for words in lists for word in words.split(","))


def _payload(given: Given) -> bytes:
    """Return the payload, given as JSON or made of the command."""
    if given.payload is not None:
        if given.command or _says_more(given):
            raise click.UsageError(f"--payload holds all of the job: no command and none of {OF_COMMAND} with it.")
        return _payload_bytes(given.payload)
    if given.command:
        if given.job_type != JobType.SHELL:
            raise click.UsageError(f"a command is for jobs of type {JobType.SHELL}, not {given.job_type}.")
        return shell_payload(
            words_to_run(given.command),
            env=dict(given.env),
            cwd=given.cwd,
            stdin=_stdin_text(given.stdin),
            nice=given.nice,
            run_as=given.run_as,
            allow_background=given.allow_background,
            limits={name: parse_limit(name, text, field="limit") for name, text in given.limit},
        )
    if given.job_type == JobType.SHELL:
        raise click.UsageError("give a command after --, or --payload with JSON.")
    return b"{}"


def _says_more(given: Given) -> bool:
    """Return whether there are options that go with a command."""
    alone = (given.cwd, given.stdin, given.nice, given.run_as)
    return bool(given.env or given.limit or given.allow_background) or any(each is not None for each in alone)


def words_to_run(words: Sequence[str]) -> str | Sequence[str]:
    """Return a text for /bin/sh -c, or the words themselves."""
    if len(words) == 1 and SHELL_SIGNS.search(words[0]):
        return words[0]
    return words


def _payload_bytes(payload: str) -> bytes:
    if payload.startswith(FROM_FILE):  # no JSON begins so
        return _read("payload", payload.removeprefix(FROM_FILE))
    try:
        return payload.encode()
    except UnicodeEncodeError:
        raise InvalidInput("payload", f"{payload!r} is not valid UTF-8") from None


def _stdin_text(source: str | None) -> str | None:
    if source is None:
        return None
    try:
        return _read("stdin", source).decode()
    except UnicodeDecodeError as error:
        raise InvalidInput("stdin", f"{source} is not valid UTF-8: {error}") from None


def _read(field: str, source: str) -> bytes:
    """Return what is in a file or comes from our own stdin; no more than a payload can hold."""
    try:
        if source == STDIN:
            return sys.stdin.buffer.read(limits.PAYLOAD_BYTES + 1)
        with Path(source).open("rb") as file:
            return file.read(limits.PAYLOAD_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        raise InvalidInput(field, f"{source!r} can't be read: {error}") from None
