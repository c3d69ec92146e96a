"""`orqestra workers`: the workers that are connected."""

from collections.abc import Sequence

import click

from orqestra.cli.documents import of_workers, print_document
from orqestra.cli.options import client_options, wants_json
from orqestra.cli.session import talk
from orqestra.cli.terminal import Column, print_table, show, show_time
from orqestra.client import Client, Worker

COLUMNS = (
    Column(title="NAME", shrinks=True),
    Column(title="RUNNING", to_right=True),
    Column(title="SLOTS", to_right=True),
    Column(title="QUEUES", shrinks=True),
    Column(title="LABELS", shrinks=True),
    Column(title="CONNECTED"),
    Column(title="SERVER", shrinks=True),
    Column(title="ID", shrinks=True),
)
# Only where some worker is not well.
HEALTH = Column(title="HEALTH", shrinks=True)


@click.command()
@client_options
def workers() -> None:
    """List the workers that are connected."""

    async def operation(client: Client) -> Sequence[Worker]:
        return await client.workers()

    connected = talk(operation)
    if wants_json():
        print_document(of_workers(connected))
    else:
        unwell = any(worker.health for worker in connected)
        columns = (*COLUMNS, HEALTH) if unwell else COLUMNS
        print_table(columns, [_row(worker)[: len(columns)] for worker in connected])


def _row(worker: Worker) -> list[str]:
    return [
        show(worker.name),
        str(worker.running),
        "draining" if worker.draining else str(worker.slots),
        show(",".join(worker.queues)),
        show(",".join(f"{key}={value}" for key, value in worker.labels.items())),
        show_time(worker.connected_at),
        show(worker.server),
        worker.id,
        show(worker.health),
    ]
