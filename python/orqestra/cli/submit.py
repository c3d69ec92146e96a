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
from typing import Final

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
class CommandLine:
    """A command and what surrounds it, as the options give them."""

    words: Sequence[str]
    env: Sequence[tuple[str, str]]
    cwd: str | None
    stdin: str | None


@click.command(context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
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
@click.option("--timeout", type=Duration(), help="End an attempt that runs longer.")
@click.option("--grace", type=Duration(), default=GRACE_DEFAULT_MS, help="Between TERM and KILL.  [5s]")
@click.option("--key", metavar="KEY", help="The same key again answers the first id.  [random]")
@click.option("--wait", is_flag=True, help="Follow the output; exit as the job does.")
@client_options
@click.pass_context
def submit(
    context: click.Context,
    *,
    command: tuple[str, ...],
    job_type: str,
    payload: str | None,
    env: tuple[tuple[str, str], ...],
    cwd: str | None,
    stdin: str | None,
    queue: str,
    priority: int,
    label: tuple[tuple[str, str], ...],
    tag: tuple[str, ...],
    retries: int,
    backoff_base: int,
    backoff_factor: float,
    backoff_cap: int,
    delay: int,
    at: datetime | None,
    timeout: int | None,
    grace: int,
    key: str | None,
    wait: bool,
) -> None:
    """Submit a job and print its id.

    \b
      orqestra submit -- echo hello                run as it is, without a shell
      orqestra submit -- 'echo hello | wc -c'      one word: run by /bin/sh -c
      orqestra submit --type shell --payload '{"command": "echo hello"}'

    With --wait, what the job writes goes to stdout and stderr, and its exit code becomes ours: 128 + N
    after signal N, 124 after a timeout, 125 if it was cancelled or lost.
    """
    spec = JobSpec(
        type=job_type,
        payload=_payload(job_type, payload, CommandLine(words=command, env=env, cwd=cwd, stdin=stdin)),
        queue=queue,
        priority=priority,
        requires=label_list(dict(label)),
        retries=RetryPolicy(max_retries=retries, base_ms=backoff_base, factor=backoff_factor, cap_ms=backoff_cap),
        delay_ms=delay,
        at=at,
        timeout_ms=timeout or 0,
        grace_ms=grace,
        key=new_key() if key is None else key,
        tags=tag,
    )

    async def operation(client: Client) -> int:
        return await client.submit(spec)

    job_id = talk(operation)
    if wait:
        context.exit(wait_for_job(job_id))
    if wants_json():
        print_document({"id": job_id, "idempotency_key": spec.key})
    else:
        click.echo(job_id)


def _payload(job_type: str, payload: str | None, line: CommandLine) -> bytes:
    """Return the payload, given as JSON or made of the command."""
    if payload is not None:
        if line.words or line.env or line.cwd is not None or line.stdin is not None:
            raise click.UsageError("--payload holds all of the job: no command, --env, --cwd or --stdin with it.")
        return _payload_bytes(payload)
    if line.words:
        if job_type != JobType.SHELL:
            raise click.UsageError(f"a command is for jobs of type {JobType.SHELL}, not {job_type}.")
        return shell_payload(words_to_run(line.words), env=dict(line.env), cwd=line.cwd, stdin=_stdin_text(line.stdin))
    if job_type == JobType.SHELL:
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
