"""`orqestra server`: one server process."""

import click


@click.command()
@click.option(
    "--grpc-addr",
    "grpc_address",
    metavar="HOST:PORT",
    help="Where to listen for clients and workers.  [default: GRPC_ADDR, else 127.0.0.1:50051]",
)
@click.option(
    "--http-addr",
    "http_address",
    metavar="HOST:PORT",
    help="Where to answer /livez and /readyz.  [default: HTTP_ADDR, else 127.0.0.1:8080]",
)
@click.option(
    "--workflows-dir", metavar="DIR", help="The folder of the workflow files.  [default: WORKFLOWS_DIR, else workflows]"
)
def server(*, grpc_address: str | None, http_address: str | None, workflows_dir: str | None) -> None:
    """Run a server.

    It needs Postgres (DB_URL), whose schema `orqestra migrate up` makes, and Redis (REDIS_ADDR);
    `orqestra dev` brings both. Start as many as you like on the same two.

    SIGTERM or SIGINT stops it within five seconds: running commands go on at their workers. A second
    signal ends it at once.
    """
    import uvloop

    from orqestra import app, descriptors, log
    from orqestra.settings import Settings

    settings = Settings.load(grpc_address=grpc_address, http_address=http_address, workflows_dir=workflows_dir)
    log.configure(settings.log_level, settings.log_format)
    descriptors.take_all(settings.db_connections)
    uvloop.run(app.serve(settings))
