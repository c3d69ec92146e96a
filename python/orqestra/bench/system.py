"""The system that a scenario runs on: one of our own that is gone afterwards, or one that runs already."""

import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orqestra.bench.machine import version_of
from orqestra.bench.processes import Root
from orqestra.bench.report import Report
from orqestra.client import Client
from orqestra.embedded import postgres, redis
from orqestra.embedded.foreground import run_until_signal
from orqestra.embedded.stack import Stack


@dataclass(frozen=True, kw_only=True)
class System:
    """A client of the system, and what we know of it if we started it: its processes and programs."""

    client: Client
    roots: Sequence[Root] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_ours(self) -> bool:
        """Whether we started it."""
        return bool(self.roots)


Scenario = Callable[[System], Awaitable[Report]]


async def run_on_our_own(scenario: Scenario, *, slots: int | None = None) -> Report | None:
    """Run a scenario on a Postgres, a Redis, a server and a worker that are started for it, as they are by default.

    They are stopped and their data removed, whatever happens. Returns None if a signal ended the run.
    """
    with tempfile.TemporaryDirectory(prefix="orqestra-bench-") as directory:
        stack = Stack(Path(directory), slots=slots)
        return await run_until_signal(stack, _start_and_run(stack, scenario))


async def _start_and_run(stack: Stack, scenario: Scenario) -> Report:
    await stack.start()
    async with Client(stack.grpc_addr) as client:
        return await scenario(System(client=client, roots=_roots(stack), versions=_versions()))


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
