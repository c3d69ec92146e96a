"""What `workflow trigger --wait` does: wait for the end of a run, then answer with an exit code."""

import asyncio
from typing import Final, assert_never

from orqestra.cli.failure import ExitCode, warn
from orqestra.cli.session import talk
from orqestra.cli.wait import NO_CODE
from orqestra.client import Client, Run
from orqestra.model.lifecycle import RunState

# The end of the step that runs is awaited; this is how often it is looked whether the next one is there.
LOOK_SECONDS: Final = 0.2


def wait_for_run(run_id: int) -> Run | None:
    """Return the run once it has ended; None after a Ctrl-C, which ends the waiting and not the run."""

    async def operation(client: Client) -> Run:
        return await run_to_end(client, run_id)

    try:
        return talk(operation)
    except KeyboardInterrupt:
        warn(f"\nRun {run_id} goes on. `orqestra workflow cancel {run_id}` stops it.")
        return None


async def run_to_end(client: Client, run_id: int) -> Run:
    """Return the run once it has ended."""
    while True:
        run = await client.workflows.run(run_id)
        if run.ended:
            return run
        jobs = [step.job for step in run.steps if step.job is not None and not step.job.ended]
        if jobs:
            async for _ in client.watch(jobs[-1].id):
                pass
        else:
            await asyncio.sleep(LOOK_SECONDS)


def run_exit_code(run: Run) -> int:
    """Return the exit code of a run that has ended."""
    match run.status:
        case RunState.COMPLETED:
            return ExitCode.DONE
        case RunState.FAILED:
            return ExitCode.FAILED
        case RunState.CANCELLED | RunState.RUNNING:
            return NO_CODE
        case _:
            assert_never(run.status)
