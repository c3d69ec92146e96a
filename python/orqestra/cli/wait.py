"""What --wait does: pass on what a job writes, then answer with its own exit code."""

from typing import Final

from orqestra.cli.documents import of_job, print_document
from orqestra.cli.failure import ExitCode, warn
from orqestra.cli.options import wants_json
from orqestra.cli.output import OutputCopy
from orqestra.cli.session import talk
from orqestra.client import Client, Job
from orqestra.model.errors import OrqestraError
from orqestra.model.lifecycle import State

TIMEOUT: Final = 124
# Cancelled or lost: the job has no exit code of its own to give.
NO_CODE: Final = 125
SIGNAL_BASE: Final = 128
FIRST_FENCE: Final = 1
# The second one on a job that nobody cancelled, which is looked at first.
TIMED_OUT: Final = frozenset({"timeout", "killed_after_grace"})


def wait_for_job(job_id: int) -> int:
    """Follow a job to its end; return its exit code. With --json, print the job instead of its output.

    A Ctrl-C ends the waiting, not the job: `logs --follow` takes it up again. From here on our own exit
    codes are not used any more: they could be taken for the job's.
    """
    show_output = not wants_json()

    async def operation(client: Client) -> Job:
        return await follow_to_end(client, job_id, show_output=show_output)

    try:
        job = talk(operation)
    except KeyboardInterrupt:
        warn(f"\nJob {job_id} goes on; `orqestra cancel {job_id}` ends it.")
        return ExitCode.INTERRUPTED
    except OrqestraError as error:
        warn(f"Error: {error}\nJob {job_id} goes on; `orqestra status {job_id}` tells how.")
        return NO_CODE
    if not show_output:
        print_document(of_job(job))
    elif job.status is not State.COMPLETED and (what := _what_happened(job)):
        warn(what)
    return job_exit_code(job)


async def follow_to_end(client: Client, job_id: int, *, show_output: bool) -> Job:
    """Return the job once it has ended; pass on what it writes on the way."""
    if show_output:
        copy = OutputCopy()
        async for chunk in client.output(job_id, fence=FIRST_FENCE, follow=True):
            copy.write(chunk)
        copy.close()
    async for job in client.watch(job_id):
        if job.ended:
            break
    return await client.get(job_id, with_output=not show_output)


def job_exit_code(job: Job) -> int:
    """Return the exit code of a job that has ended, in the manner of shells and timeout(1)."""
    if job.status is State.CANCELLED:
        return NO_CODE
    if job.status is State.COMPLETED:
        return job.exit_code or 0
    if job.reason in TIMED_OUT:
        return TIMEOUT
    if job.exit_signal is not None:
        return SIGNAL_BASE + job.exit_signal
    return job.exit_code or NO_CODE


def _what_happened(job: Job) -> str | None:
    """Return a line about an end that the exit code alone does not tell; None for a plain one."""
    if job.status is State.CANCELLED:
        return f"Job {job.id} was cancelled."
    if job.reason in TIMED_OUT:
        return f"Job {job.id} ran longer than its timeout."
    return f"Job {job.id} failed: {job.error}" if job.error else None
