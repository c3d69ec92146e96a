"""The processes of a cluster: what each is, and how it is hurt."""

import asyncio
import signal
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from orqestra.embedded.address import Reservation
from orqestra.embedded.part import Part
from tests.chaos.control import Control, Puppet
from tests.chaos.proxy import Bundle, Proxy
from tests.chaos.settings import SUPERVISOR
from tests.support.lossy_postgres import LossyPostgres
from tests.support.processes import descendants

STOP_SECONDS: Final = 6.0
POLL_SECONDS: Final = 0.02
MEGABYTE: Final = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a cluster is made of."""

    servers: int = 1
    workers: int = 2
    slots: int = 4
    lease_seconds: float = 3.0
    broken: str = ""
    """A build that is broken on purpose (`tests/chaos/broken.py`)."""
    clock_offsets: Mapping[str, float] | None = None
    """Seconds by which processes, by name, mistake the time of day."""
    variables: Mapping[str, str] | None = None
    disk_mb: int = 0
    """How large the disk of Postgres is, one of its own; 0: it is that of the machine."""
    witnessed: bool = True
    """Whether the history is kept, the trigger watches and links go through proxies: not where speed is measured."""


class Node:
    """A server or a worker: its process, started as often as needed, and the links that it uses."""

    def __init__(self, name: str, part: Part, control: Control, log: Path) -> None:
        self.name = name
        self._log = log
        self._log_read = 0
        self._part = part
        self._control = control
        self.running = False

    @property
    def pid(self) -> int:
        """The pid of the last start."""
        return self._part.child.pid

    def start(self) -> None:
        """Start the process, the first time or again."""
        self._part.start()
        self.running = True

    async def puppet(self) -> Puppet:
        """Return the strings of the running process."""
        return await self._control.puppet(self.name, self.pid)

    async def kill(self) -> None:
        """SIGKILL the process alone; its commands are left to whatever becomes of them."""
        self._part.kill()
        await self._part.wait_for_end()
        self.running = False

    async def kill_tree(self) -> None:
        """SIGKILL the process and all that it started: its host is gone."""
        self._part.kill_tree()
        await self._part.wait_for_end()
        self.running = False

    async def stop(self, seconds: float = STOP_SECONDS) -> int:
        """SIGTERM; return the exit code."""
        code = await self._part.child.stop((signal.SIGTERM, seconds))
        self.running = False
        return code

    def pause(self, *, tree: bool = False) -> None:
        """SIGSTOP, with `tree` all that it started too."""
        self._part.child.send(signal.SIGSTOP)
        if tree:
            _signal(descendants(self.pid), signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT, all that it started too."""
        self._part.child.send(signal.SIGCONT)
        _signal(descendants(self.pid), signal.SIGCONT)

    def log(self) -> str:
        """Return what it has logged since `skip_log`."""
        with self._log.open() as log:
            log.seek(self._log_read)
            return log.read()

    def skip_log(self) -> None:
        """Begin `log` here."""
        self._log_read = self._log.stat().st_size

    def resident_mb(self) -> float:
        """Return the memory that it has now."""
        return float(psutil.Process(self.pid).memory_info().rss) / MEGABYTE


class Server(Node):
    """A server with its links to the stores."""

    def __init__(
        self, name: str, part: Part, control: Control, log: Path, *, ports: Mapping[str, Reservation], links: "Links"
    ) -> None:
        super().__init__(name, part, control, log)
        self._ports = ports
        self.links = links

    @property
    def grpc_port(self) -> int:
        """Where it listens for clients and workers."""
        return self._ports["GRPC_ADDR"].address.port

    @property
    def http_port(self) -> int:
        """Where it tells its health."""
        return self._ports["HTTP_ADDR"].address.port

    async def get(self, path: str) -> str:
        """Return what it answers by HTTP; raises OSError if it does not."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.http_port)
        try:
            writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            return (await reader.read()).decode()
        finally:
            writer.close()

    async def ready(self) -> None:
        """Return once it says that it is ready."""
        while True:
            with suppress(OSError):
                if " 200 " in (await self.get("/readyz")).partition("\r\n")[0]:
                    return
            await asyncio.sleep(POLL_SECONDS)

    def release(self) -> None:
        """Give up the ports."""
        for port in self._ports.values():
            port.release()


@dataclass(frozen=True, kw_only=True)
class Links:
    """The ways of one server to the stores: `commits` loses replies of Postgres, the proxies do the rest."""

    postgres: Proxy
    redis: Proxy
    commits: LossyPostgres


class Worker(Node):
    """A worker with its links to the servers: the daemon, and the supervisor that outlives it."""

    def __init__(self, name: str, part: Part, control: Control, log: Path, *, link: Bundle, state: Path) -> None:
        super().__init__(name, part, control, log)
        self.link = link
        self._state = state

    async def supervisor(self) -> Puppet:
        """Return the strings of its supervisor."""
        return await self._control.living(self.name + SUPERVISOR)

    def kill_supervisor(self) -> None:
        """SIGKILL the supervisor alone; its commands end by themselves."""
        for process in self._supervisors():
            process.kill()

    async def kill_tree(self) -> None:
        """SIGKILL daemon, supervisor and commands, whoever of them lives: its host is gone."""
        for process in self._supervisors():
            for each in (*descendants(process.pid), process):
                with suppress(psutil.NoSuchProcess):
                    each.kill()
        await super().kill_tree()

    def pause(self, *, tree: bool = False) -> None:
        """SIGSTOP the daemon, with `tree` all of them."""
        super().pause(tree=tree)
        if tree:
            self._signal_supervised(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT all of them."""
        super().resume()
        self._signal_supervised(signal.SIGCONT)

    def _signal_supervised(self, number: signal.Signals) -> None:
        for process in self._supervisors():
            _signal((process, *descendants(process.pid)), number)

    def _supervisors(self) -> list[psutil.Process]:
        """Return the supervisor that lives in the state directory, if one does: it works there."""
        found = []
        for lock in self._state.glob("worker-*/supervisor.lock"):
            with suppress(psutil.NoSuchProcess, ValueError):
                process = psutil.Process(int(lock.read_text()))
                if Path(process.cwd()).is_relative_to(self._state):
                    found.append(process)
        return found


def _signal(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)
