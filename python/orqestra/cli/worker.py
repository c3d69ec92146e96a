"""`orqestra worker`: runs jobs until it is told to stop.

Exit codes: 0 drained; 1 results could not be delivered, or the worker could not start; 2 bad input.
"""

import os
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Final

import click

from orqestra.cli.options import SERVER
from orqestra.cli.parameters import Pair
from orqestra.garbage import collect_seldom
from orqestra.model import limits
from orqestra.model.job import QUEUE_DEFAULT, check_name, check_range, check_text, label_list

if TYPE_CHECKING:  # slow to import: a command line must be quick to start
    from orqestra.settings import Settings
    from orqestra.worker.daemon import WorkerOptions

# From the end of the worker to the end of the process.
EXIT_SECONDS: Final = 2.0


@click.command()
@click.option(
    "--slots",
    type=click.IntRange(1, limits.SLOTS_MAX),
    help="How many jobs it runs at once.  [default: WORKER_COUNT, else 4 x CPUs]",
)
@click.option(
    "--queue", "queues", multiple=True, metavar="NAME", help="Serve this queue; repeat it for more.  [default: default]"
)
@click.option("--label", "labels", multiple=True, type=Pair(), help="What jobs can require; repeat it for more.")
@click.option("--name", default="", help="Its name for people.  [default: the host's, with a number]")
@click.option(
    "--server",
    metavar="HOST:PORT[,...]",
    help="The server to work for, or several; else ORQESTRA_SERVERS, else GRPC_ADDR.",
)
@click.option("--state-dir", metavar="DIR", help="Where it keeps its identity; else ORQESTRA_STATE_DIR.")
@click.option(
    "--drain-seconds",
    type=click.FloatRange(0),
    help="How long commands may go on once it is told to stop.  [default: ORQESTRA_DRAIN_SECONDS, else 30]",
)
@click.option(
    "--orphan-seconds",
    type=click.FloatRange(1),
    help="How long commands go on without this process.  [default: ORQESTRA_ORPHAN_SECONDS, else 600]",
)
@click.pass_context
def worker(
    context: click.Context,
    *,
    slots: int | None,
    queues: tuple[str, ...],
    labels: tuple[tuple[str, str], ...],
    name: str,
    server: str | None,
    state_dir: str | None,
    drain_seconds: float | None,
    orphan_seconds: float | None,
) -> None:
    """Run a worker.

    It runs the jobs of its queues whose required labels it has, in the directory where it was started.
    Commands see PATH, HOME, LANG and TZ of its environment, what ORQESTRA_WORKER_ENV names, a TMPDIR
    of their own, what the job brings and ORQESTRA_*; nothing else.

    SIGTERM or SIGINT drains it: what has not started goes back, what runs may end; after the drain time
    it is ended and goes back too. A second signal ends it at once. SIGUSR2, or a death, leaves the
    commands running: the next start with this state directory takes them over.
    """
    queues = tuple(dict.fromkeys(queues)) or (QUEUE_DEFAULT,)
    _check(queues, labels, name)

    from orqestra import log
    from orqestra.settings import Settings
    from orqestra.worker.daemon import Worker
    from orqestra.worker.memory import outlast_commands

    settings = Settings.load(
        worker_slots=slots,
        state_dir=state_dir,
        drain_seconds=drain_seconds,
        orphan_seconds=orphan_seconds,
        servers=server or context.meta.get(SERVER),
    )
    log.configure(settings.log_level, settings.log_format)
    outlast_commands()
    context.exit(_run(Worker(_options(settings, name, queues, dict(labels))).run))


def _options(settings: "Settings", name: str, queues: tuple[str, ...], labels: dict[str, str]) -> "WorkerOptions":
    from orqestra.worker.daemon import WorkerOptions
    from orqestra.worker.surroundings import Surroundings

    return WorkerOptions(
        addresses=tuple(address.dial for address in settings.servers),
        name=name,
        slots=settings.worker_slots,
        queues=queues,
        labels=labels,
        state_dir=settings.state_dir,
        drain_seconds=settings.drain_seconds,
        orphan_seconds=settings.orphan_seconds,
        passed_on=settings.worker_environment,
        surroundings=Surroundings(run_as=settings.run_as, ceilings=settings.ceilings),
    )


def _check(queues: tuple[str, ...], labels: tuple[tuple[str, str], ...], name: str) -> None:
    """Raise InvalidInput, with the option, for what a server would refuse."""
    for queue in queues:
        check_name("--queue", queue)
    check_range("--queue", len(queues), 1, limits.WORKER_QUEUES)
    label_list(dict(labels), "--label")
    if name:
        check_text("--name", name, limits.NAME_CHARS)


def _run(worker: Callable[[], Coroutine[None, None, int]]) -> int:
    """Run a worker to its end and return the exit code."""
    import uvloop

    async def run() -> int:
        code = await worker()
        # gRPC's poller can keep the loop from closing (grpc#40989); by now there is nothing left to lose.
        leave = threading.Timer(EXIT_SECONDS, os._exit, [code])
        leave.daemon = True
        leave.start()
        return code

    collect_seldom()
    return uvloop.run(run())
