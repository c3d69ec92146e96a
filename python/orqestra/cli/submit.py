"""`orqestra submit`: store a job and print its id; with --wait, follow it to its end.

The words after `--` are the command. Several are run as they are, without a shell, and so is a single
plain one. A single word that holds anything a shell would act on (a space, a quote, `|`, `$` ...) is run by
/bin/sh -c: `orqestra submit -- 'make all | tee log'`.
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import click

from orqestra.cli.documents import print_document
from orqestra.cli.options import client_options, wants_json
from orqestra.cli.parameters import Duration, Pair, Time
from orqestra.cli.session import talk
from orqestra.cli.wait import wait_for_job
from orqestra.client import Client, JobSpec, JobType, RetryPolicy, label_list, new_key, shell_payload
from orqestra.model import limits
from orqestra.model.errors import InvalidInput
from orqestra.model.job import GRACE_DEFAULT_MS, QUEUE_DEFAULT

# What no program's name is likely to hold and /bin/sh would act on.
SHELL_SIGNS: Final = re.compile(r"[\s|&;<>()$`\\\"'*?\[\]#~=%!{}]")
FROM_FILE: Final = "@"
STDIN: Final = "-"
POLICY: Final = RetryPolicy()


@dataclass(frozen=True, kw_only=True)
class Given:
    """What the options and the words after them say. Durations are milliseconds."""

    command: tuple[str, ...]
    job_type: str
    payload: str | None
    env: tuple[tuple[str, str], ...]
    cwd: str | None
    stdin: str | None
    queue: str
    priority: int
    label: tuple[tuple[str, str], ...]
    tag: tuple[str, ...]
    retries: int
    backoff_base: int
    backoff_factor: float
    backoff_cap: int
    delay: int
    at: datetime | None
    timeout: int
    grace: int
    key: str | None
    wait: bool


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("--type", "job_type", default=JobType.SHELL.value, show_default=True, help="shell or noop.")
@click.option("--payload", metavar="JSON", help="The job as JSON; @FILE reads it from a file, @- from stdin.")
@click.option("--env", type=Pair(), multiple=True, metavar="K=V", help="A variable for the command.")
@click.option("--cwd", metavar="DIR", help="Where the command runs.")
@click.option("--stdin", metavar="FILE", help="What the command reads; - is what this command reads.")
@click.option("--queue", default=QUEUE_DEFAULT, show_default=True, help="The queue to wait in.")
@click.option("--priority", type=int, default=limits.PRIORITY_DEFAULT, show_default=True, help="0-9, 9 first.")
@click.option("--label", type=Pair(), multiple=True, metavar="K=V", help="A label that the worker must have.")
@click.option("--tag", multiple=True, metavar="TAG", help="A word to find the job by.")
@click.option("--retries", type=int, default=0, show_default=True, help="Attempts after the first.")
@click.option("--backoff-base", type=Duration(), default=POLICY.base_ms, help="Before the first retry.  [1s]")
@click.option("--backoff-factor", type=float, default=POLICY.factor, help="Growth per retry.  [2]")
@click.option("--backoff-cap", type=Duration(), default=POLICY.cap_ms, help="The longest wait.  [5m]")
@click.option("--delay", type=Duration(), default=0, help="Run after this time: 10s, 1m30s.")
@click.option("--at", type=Time(), help="Run at this time: 2030-01-31T18:30:00Z.")
@click.option("--timeout", type=Duration(), default=0, help="End an attempt that runs longer.")
@click.option("--grace", type=Duration(), default=GRACE_DEFAULT_MS, help="Between TERM and KILL.  [5s]")
@click.option("--key", metavar="KEY", help="The same key again answers the first id.  [random]")
@click.option("--wait", is_flag=True, help="Follow the output; exit as the job does.")
@client_options
@click.pass_context
def submit(context: click.Context, /, **options: Any) -> None:
    """Submit a job and print its id.

    \b
      orqestra submit -- echo hello                run as it is, without a shell
      orqestra submit -- 'echo hello | wc -c'      one word: run by /bin/sh -c
      orqestra submit --type shell --payload '{"command": "echo hello"}'

    With --wait, what the job writes goes to stdout and stderr, and its exit code becomes ours: 128 + N
    after signal N, 124 after a timeout, 125 if it was cancelled or lost.
    """
    given = Given(**options)
    spec = _spec(given)

    async def operation(client: Client) -> int:
        return await client.submit(spec)

    job_id = talk(operation)
    if given.wait:
        context.exit(wait_for_job(job_id))
    if wants_json():
        print_document({"id": job_id, "idempotency_key": spec.key})
    else:
        click.echo(job_id)


def _spec(given: Given) -> JobSpec:
    return JobSpec(
        type=given.job_type,
        payload=_payload(given),
        queue=given.queue,
        priority=given.priority,
        requires=label_list(dict(given.label)),
        retries=RetryPolicy(
            max_retries=given.retries,
            base_ms=given.backoff_base,
            factor=given.backoff_factor,
            cap_ms=given.backoff_cap,
        ),
        delay_ms=given.delay,
        at=given.at,
        timeout_ms=given.timeout,
        grace_ms=given.grace,
        key=new_key() if given.key is None else given.key,
        tags=given.tag,
    )


def _payload(given: Given) -> bytes:
    """Return the payload, given as JSON or made of the command."""
    if given.payload is not None:
        if given.command or given.env or given.cwd is not None or given.stdin is not None:
            raise click.UsageError("--payload holds all of the job: no command, --env, --cwd or --stdin with it.")
        return _payload_bytes(given.payload)
    if given.command:
        if given.job_type != JobType.SHELL:
            raise click.UsageError(f"a command is for jobs of type {JobType.SHELL}, not {given.job_type}.")
        stdin = _stdin_text(given.stdin)
        return shell_payload(words_to_run(given.command), env=dict(given.env), cwd=given.cwd, stdin=stdin)
    if given.job_type == JobType.SHELL:
        raise click.UsageError("give a command after --, or --payload with JSON.")
    return b"{}"


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
