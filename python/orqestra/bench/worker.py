"""A worker that tells when it starts jobs: the normal one, run as `python -m orqestra.bench.worker`.

    python -m orqestra.bench.worker JOURNAL QUEUE NAME SLOTS [LABEL ...]

JOURNAL is a FIFO that somebody reads. Servers and state directory are those of the settings.
"""

import os
import sys
from pathlib import Path
from typing import NoReturn

import uvloop

from orqestra import log
from orqestra.bench.journal import Journal
from orqestra.garbage import collect_seldom
from orqestra.settings import Settings
from orqestra.worker.daemon import Worker, WorkerOptions


def main(arguments: list[str]) -> None:
    """Work until told to stop, then end the process."""
    path, queue, name, slots, *labels = arguments
    settings = Settings.load()
    log.configure(settings.log_level, settings.log_format)
    options = WorkerOptions(
        addresses=tuple(address.dial for address in settings.servers),
        name=name,
        slots=int(slots),
        queues=(queue,),
        labels=dict(label.split("=", 1) for label in labels),
        state_dir=settings.state_dir,
        drain_seconds=settings.drain_seconds,
        orphan_seconds=settings.orphan_seconds,
    )
    collect_seldom()
    uvloop.run(_work(options, Journal(Path(path))))


async def _work(options: WorkerOptions, journal: Journal) -> NoReturn:
    try:
        code = await Worker(options, on_noops=journal.note).run()
    finally:
        journal.close()
    # gRPC's poller can keep the loop from closing (grpc#40989); by now there is nothing left to lose.
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
