"""`orqestra dev`: the whole system in this terminal, with its data in one folder."""

from pathlib import Path

import click

from orqestra.model.limits import SLOTS_MAX

WORKERS_MAX = 100


@click.command()
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".orqestra"),
    show_default=True,
    help="Where everything is kept; made if it is not there.",
)
@click.option("--grpc-addr", metavar="HOST:PORT", help="Where the server listens; else GRPC_ADDR.")
@click.option("--http-addr", metavar="HOST:PORT", help="Where its health is; else HTTP_ADDR.")
@click.option("--workers", type=click.IntRange(0, WORKERS_MAX), default=1, show_default=True)
@click.option("--slots", type=click.IntRange(1, SLOTS_MAX), help="Jobs a worker runs at once; else WORKER_COUNT.")
def dev(data_dir: Path, grpc_addr: str | None, http_addr: str | None, workers: int, slots: int | None) -> None:
    """Run everything in this terminal.

    Starts a Postgres and a Redis of its own, a server and workers; prints a line with "ready" once jobs
    can be submitted. Ctrl-C stops it all. The data stays for the next time.
    """
    import asyncio

    from orqestra import log
    from orqestra.embedded.foreground import OwnLines, TerminalLines, run_in_foreground
    from orqestra.embedded.stack import Stack
    from orqestra.settings import Settings

    settings = Settings.load(grpc_address=grpc_addr, http_address=http_addr)
    settings.check_listen()
    # The lines of many processes are for people, wherever they go, unless JSON was asked for.
    log_format = "text" if settings.log_format == "auto" else settings.log_format
    lines = TerminalLines()
    log.configure(settings.log_level, log_format, OwnLines(lines))
    stack = Stack(
        data_dir,
        workers=workers,
        slots=slots,
        grpc_address=str(settings.grpc_address),
        http_address=str(settings.http_address),
        settings={"ORQESTRA_LOG_FORMAT": log_format},
        output=lines,
    )

    def when_ready() -> None:
        click.echo(
            f"ready: gRPC {stack.grpc_addr}, HTTP {stack.http_addr}, "
            f"workers {workers}, data in {data_dir}; Ctrl-C stops it"
        )

    asyncio.run(run_in_foreground(stack, when_ready))
