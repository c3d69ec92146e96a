"""What a run that is cut off leaves on a server that goes on: no job of it that still waits or runs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

from orqestra.client import Client, JobFilter
from orqestra.log import get_logger
from orqestra.model import limits
from orqestra.model.errors import OrqestraError
from orqestra.model.lifecycle import TERMINAL, State

OPEN: Final = tuple(state for state in State if state not in TERMINAL)
# Within it a batch is committed that was on its way when its caller was cancelled.
SETTLE_SECONDS: Final = 0.5
QUIET_LOOKS: Final = 2

log = get_logger(__name__)


@asynccontextmanager
async def leaving_none(client: Client, where: JobFilter) -> AsyncIterator[None]:
    """Cancel the jobs of `where`, which names a queue or tags, if the block is left by an error or a signal.

    Where that can't be done, or another signal comes, say how to do it.
    """
    try:
        yield
    except BaseException:
        try:
            await _cancel(client, replace(where, statuses=OPEN))
        except (OrqestraError, asyncio.CancelledError) as error:
            option = f"--queue {where.queue}" if where.queue else " ".join(f"--tag {tag}" for tag in where.tags)
            log.warning(
                f"jobs of this run may still wait: `orqestra list {option} --status {','.join(OPEN)}` shows them, "
                "`orqestra cancel ID...` ends them",
                reason=str(error) or "interrupted",
            )
        raise


async def _cancel(client: Client, where: JobFilter) -> None:
    """Cancel until nothing has come for a moment."""
    quiet = 0
    while quiet < QUIET_LOOKS:
        if ids := await _open_ids(client, where):
            await client.cancel(ids)
            quiet = 0
        else:
            quiet += 1
            await asyncio.sleep(SETTLE_SECONDS)


async def _open_ids(client: Client, where: JobFilter) -> list[int]:
    """Return jobs that have not ended and are not told to: as many as one call cancels, fewer only if there are."""
    ids: list[int] = []
    after: int | None = None
    while len(ids) <= limits.CANCEL_JOBS - limits.PAGE_JOBS:
        page = await client.list(where, limit=limits.PAGE_JOBS, after=after)
        ids += [job.id for job in page.jobs if not job.cancel_requested]
        if page.next is None:
            break
        after = page.next
    return ids
