"""The system that a scenario runs on: one of our own that is gone afterwards, or one that runs already."""

import secrets
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from orqestra.bench.audit import Source
from orqestra.bench.leaving import leaving_none
from orqestra.bench.limit import Limits
from orqestra.bench.machine import version_of
from orqestra.bench.processes import Root
from orqestra.bench.report import Report
from orqestra.bench.wire import Wire
from orqestra.client import Client, JobFilter, Patience
from orqestra.embedded import postgres, redis
from orqestra.embedded.foreground import run_until_signal
from orqestra.embedded.stack import Stack


@dataclass(frozen=True, kw_only=True)
class System:
    """Connections to the system, and what we know of it.

    `database_url`, `roots` and `versions` are its database, processes and programs if we started it.
    """

    client: Client
    wire: Wire
    address: str
    limits: Limits
    database_url: str | None = None
    roots: Sequence[Root] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_ours(self) -> bool:
        """Whether we started it."""
        return self.database_url is not None

    @property
    def source(self) -> Source:
        """Where to read jobs after a load."""
        return self.wire if self.database_url is None else self.database_url

    def leaving_none(self, where: JobFilter) -> AbstractAsyncContextManager[None]:
        """Return a block that leaves no jobs of `where` behind if it is cut off; our own system goes with them."""
        return nullcontext() if self.is_ours else leaving_none(self.client, where)


@dataclass(frozen=True, kw_only=True)
class Running:
    """A system that runs already: where its server is, and how the limits are measured beside it."""

    address: str
    patience: Patience
    limits: Limits


Scenario = Callable[[System], Awaitable[Report]]


def new_name() -> str:
    """Return a name for a queue or a tag that nobody else has."""
    return f"bench-{secrets.token_hex(4)}"


async def run_on_running(scenario: Scenario, running: Running) -> Report | None:
    """Run a scenario on a system that runs already and is left as it is. Returns None if a signal ended the run."""
    return await run_until_signal(None, _run_on_running(scenario, running))


async def run_on_our_own(
    scenario: Scenario, limits: Limits, *, workers: int, slots: int | None = None
) -> Report | None:
    """Run a scenario on a Postgres, a Redis, a server and workers that are started for it, as they are by default.

    They are stopped and their data removed, whatever happens. Returns None if a signal ended the run.
    """
    with tempfile.TemporaryDirectory(prefix="orqestra-bench-") as directory:
        stack = Stack(Path(directory), workers=workers, slots=slots)
        return await run_until_signal(stack, _start_and_run(stack, scenario, limits))


async def _run_on_running(scenario: Scenario, running: Running) -> Report:
    async with _connected(running.address, running.patience) as (client, wire):
        return await scenario(System(client=client, wire=wire, address=running.address, limits=running.limits))


async def _start_and_run(stack: Stack, scenario: Scenario, limits: Limits) -> Report:
    await stack.start()
    async with _connected(stack.grpc_addr, Patience()) as (client, wire):
        return await scenario(
            System(
                client=client,
                wire=wire,
                address=stack.grpc_addr,
                # Not our own database: the same server, and nothing that could get in each other's way.
                limits=replace(limits, postgres_url=limits.postgres_url or stack.postgres.url("postgres")),
                database_url=stack.db_url,
                roots=_roots(stack),
                versions=_versions(),
            )
        )


@asynccontextmanager
async def _connected(address: str, patience: Patience) -> AsyncIterator[tuple[Client, Wire]]:
    async with Client(address, patience=patience) as client, Wire(address) as wire:
        yield client, wire


def _roots(stack: Stack) -> list[Root]:
    return [
        Root(name="server", pid=stack.server.child.pid),
        *(
            Root(name=part.name, pid=part.child.pid, runs_commands=True)
            for part in map(stack.worker, range(stack.workers))
        ),
        Root(name="postgres", pid=stack.postgres.child.pid),
        Root(name="redis", pid=stack.redis.child.pid),
    ]


def _versions() -> dict[str, str]:
    return {
        "postgres": version_of(postgres.find_binaries() / "postgres"),
        "redis-server": version_of(redis.find_program()),
    }
