"""`orqestra submit`: store a job and print its id; with --wait, follow it to its end.

The words after `--` are the command. Several are run as they are, without a shell, and so is a single
plain one. A single word that holds anything a shell would act on (a space, a quote, `|`, `$` ...) is run by
/bin/sh -c: `orqestra submit -- 'make all | tee log'`.
"""

from typing import Any, Final

import click

from orqestra.cli.documents import print_document
from orqestra.cli.given_job import Given, spec_of
from orqestra.cli.options import client_options, wants_json
from orqestra.cli.parameters import Duration, Pair, Time
from orqestra.cli.session import talk
from orqestra.cli.wait import wait_for_job
from orqestra.client import Client, Jitter, JobType, RetryPolicy
from orqestra.model import limits
from orqestra.model.job import GRACE_DEFAULT_MS, QUEUE_DEFAULT

POLICY: Final = RetryPolicy()


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("--type", "job_type", default=JobType.SHELL.value, show_default=True, help="shell or noop.")
@click.option("--payload", metavar="JSON", help="The job as JSON; @FILE reads it from a file, @- from stdin.")
@click.option("--env", type=Pair(), multiple=True, metavar="K=V", help="A variable for the command.")
@click.option("--cwd", metavar="DIR", help="Where the command runs.")
@click.option("--stdin", metavar="FILE", help="What the command reads; - is what this command reads.")
@click.option("--nice", type=int, help="Run with a lower priority: 0-19.")
@click.option("--run-as", metavar="USER[:GROUP]", help="Run as this user of the worker's machine.")
@click.option("--allow-background", is_flag=True, help="Let what it leaves running run on.")
@click.option("--limit", type=Pair(), multiple=True, metavar="NAME=N", help="open_files=256, memory_bytes=1GiB ...")
@click.option("--queue", default=QUEUE_DEFAULT, show_default=True, help="The queue to wait in.")
@click.option("--priority", type=int, default=limits.PRIORITY_DEFAULT, show_default=True, help="0-9, 9 first.")
@click.option("--label", type=Pair(), multiple=True, metavar="K=V", help="A label that the worker must have.")
@click.option("--tag", multiple=True, metavar="TAG", help="A word to find the job by.")
@click.option("--retries", type=int, default=0, show_default=True, help="Attempts after the first.")
@click.option("--backoff-base", type=Duration(), default=POLICY.base_ms, help="Before the first retry.  [1s]")
@click.option("--backoff-factor", type=float, default=POLICY.factor, help="Growth per retry.  [2]")
@click.option("--backoff-cap", type=Duration(), default=POLICY.cap_ms, help="The longest wait.  [5m]")
@click.option("--backoff-jitter", default=POLICY.jitter.value, show_default=True, help=f"{', '.join(Jitter)}.")
@click.option("--retry-on", multiple=True, metavar="WORDS", help="Retry only these: 75,10-20,signal:KILL,timeout.")
@click.option("--retry-never", multiple=True, metavar="WORDS", help="Never retry these, whatever --retry-on says.")
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
    spec = spec_of(given)

    async def operation(client: Client) -> int:
        return await client.submit(spec)

    job_id = talk(operation)
    if given.wait:
        context.exit(wait_for_job(job_id))
    if wants_json():
        print_document({"id": job_id, "idempotency_key": spec.key})
    else:
        click.echo(job_id)
