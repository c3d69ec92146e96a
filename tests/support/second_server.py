"""A second server and a worker of its own, on the stores of a running stack."""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from dotenv import dotenv_values

from orqestra.embedded.address import Reservation
from orqestra.embedded.part import Part
from orqestra.embedded.process import Program
from orqestra.embedded.stack import FREE_ADDRESS, Stack
from orqestra.setting_kinds import parse_address

STOP_SECONDS = 10.0
LABEL = "where=second"


@dataclass(frozen=True, kw_only=True)
class SecondServer:
    """The two processes, and where clients of the server connect, and Prometheus."""

    address: str
    http: str
    server: Part
    worker: Part


@asynccontextmanager
async def second_server(stack: Stack, *, slots: int) -> AsyncIterator[SecondServer]:
    """Start them as anybody could who has the stack's `env` file; yield once the worker is connected."""
    ports = {name: Reservation(parse_address(FREE_ADDRESS), name) for name in ("GRPC_ADDR", "HTTP_ADDR")}
    found = dotenv_values(stack.data_dir / "env")
    environment = {
        **os.environ,
        **stack.settings,
        **{name: value for name, value in found.items() if value is not None},
        **{name: str(port.address) for name, port in ports.items()},
    }
    worker_arguments = (
        *("--name", "second", "--label", LABEL, "--slots", str(slots)),
        *("--state-dir", str(stack.data_dir / "second"), "--drain-seconds", "0.5"),
    )
    second = SecondServer(
        address=ports["GRPC_ADDR"].address.dial,
        http=ports["HTTP_ADDR"].address.dial,
        server=_part(stack, environment, "server"),
        worker=_part(stack, environment, "worker", *worker_arguments),
    )
    try:
        second.server.start()
        second.worker.start()
        await stack.wait_for_workers(stack.workers + 1)
        yield second
    finally:
        await second.worker.stop(STOP_SECONDS)
        await second.server.stop(STOP_SECONDS)
        for port in ports.values():
            port.release()


def _part(stack: Stack, environment: dict[str, str], command: str, *arguments: str) -> Part:
    program = Program(
        name=f"second-{command}",
        argv=(sys.executable, "-m", "orqestra", command, *arguments),
        directory=Path.cwd(),
        environment=environment,
    )
    return Part(program, stack.data_dir / "logs" / f"second-{command}.log", None)
