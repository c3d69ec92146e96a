"""The settings: read once, checked, frozen, handed down.

Each is declared once, as a field of `Settings`. The table in `docs/configuration.md` and
`.env.example` are written from there by `tools/settings_docs.py`.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Self

from orqestra import setting_defaults
from orqestra.log import FORMATS, LEVELS
from orqestra.model.duration import UNIT_MS
from orqestra.model.errors import BadSettings
from orqestra.model.limits import SLOTS_MAX
from orqestra.model.payload import LIMITS_MAX
from orqestra.setting_kinds import (
    ACCOUNTS,
    ADDRESS,
    ADDRESSES,
    DATABASE,
    FOLDER,
    NAMES,
    NAMESPACE,
    REDIS,
    SWITCH,
    TEXT,
    Address,
    SocketPath,
    age,
    ceilings,
    choice,
    mask,
    mask_url,
    seconds,
    whole,
)
from orqestra.setting_variable import Variable, checked_value, read_dotenv, read_from, text

DOTENV: Final = Path(".env")
HOUR_SECONDS: Final = 3600
# No statement is under way for a minute: what is deleted after one is nobody's any more.
AGE: Final = age(UNIT_MS["m"], 10 * 366 * UNIT_MS["d"])


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of one process, checked. Only `load` makes one; its `repr` shows no secret."""

    db_url: str = field(
        repr=False,
        metadata=read_from(
            name="DB_URL",
            kind=DATABASE,
            default="postgresql://orqestra@localhost:5432/orqestra",
            why="Postgres, for the server and the migrations. The default has no password on purpose.",
            show=lambda url: repr(mask_url(url)),
        ),
    )
    db_connections: int = field(
        metadata=read_from(
            name="ORQESTRA_DB_POOL",
            kind=whole(3, 200),
            default="8",
            unit="connections",
            why="Postgres connections of one server. Every stage works in batches, one connection each; "
            "8 give each loop its own and leave some for reads. What clients ask never takes the last three.",
        )
    )
    redis_address: Address | SocketPath = field(
        metadata=read_from(
            name="REDIS_ADDR",
            kind=REDIS,
            default="localhost:6379",
            why="Redis or Valkey, for the server; its usual port. Without it a server starts and works, but slower, "
            "and says so.",
        )
    )
    redis_password: str = field(
        repr=False,
        metadata=read_from(
            name="REDIS_PASSWORD",
            kind=TEXT,
            default="",
            shown_default="none",
            why="The password of Redis; none, because a shipped one would be everyone's.",
            show=mask,
        ),
    )
    redis_db: int = field(
        metadata=read_from(
            name="REDIS_DB",
            kind=whole(0, 9999),
            default="0",
            why="The database number inside Redis; 0 is the only one that a cluster has.",
        )
    )
    redis_namespace: str = field(
        metadata=read_from(
            name="REDIS_QUEUE_NAME",
            kind=NAMESPACE,
            default="jobs",
            why="All keys begin with it, so that several installations can share one Redis.",
        )
    )
    window_hints: int = field(
        metadata=read_from(
            name="ORQESTRA_WINDOW",
            kind=whole(10, 1_000_000),
            default="100000",
            unit="hints per lane",
            why="How many waiting jobs of a lane Redis knows of at most; the rest is refilled from "
            "Postgres. 100,000 last some seconds at full speed and take about 10 MB. It is less where so many "
            "lanes share a million.",
        )
    )
    grpc_address: Address = field(
        metadata=read_from(
            name="GRPC_ADDR",
            kind=ADDRESS,
            default=setting_defaults.GRPC,
            why="Where the server listens and where the worker and the command line connect; with "
            "`:50051` they connect to localhost. Loopback, because who can submit can run commands.",
        )
    )
    servers: tuple[Address, ...] = field(
        metadata=read_from(
            name="ORQESTRA_SERVERS",
            kind=ADDRESSES,
            default=setting_defaults.servers,
            shown_default="GRPC_ADDR",
            why="The servers that a worker may work for, in any order: it walks on to the next one when a stream "
            "ends. One is enough where a name or a load balancer stands for all of them.",
        )
    )
    http_address: Address = field(
        metadata=read_from(
            name="HTTP_ADDR",
            kind=ADDRESS,
            default="127.0.0.1:8080",
            why="Where the server answers `/livez`, `/readyz` and `/metrics`; loopback for the same reason.",
        )
    )
    insecure: bool = field(
        metadata=read_from(
            name="ORQESTRA_INSECURE",
            kind=SWITCH,
            default="0",
            why="1 lets the server listen on other addresses than loopback although anyone who "
            "reaches it can run commands on the workers. Off, so that nobody does it unaware.",
        )
    )
    lease_seconds: float = field(
        metadata=read_from(
            name="ORQESTRA_LEASE_SECONDS",
            kind=seconds(3, 300),
            default="15",
            unit="seconds",
            why="A worker not heard from for so long has lost its jobs. 15 outlasts a short network "
            "fault and still gives a lost host's jobs to others within 17 seconds.",
        )
    )
    workflows_dir: Path = field(
        metadata=read_from(
            name="WORKFLOWS_DIR",
            kind=FOLDER,
            default=setting_defaults.workflows_dir,
            shown_default="workflows, else the examples of the package",
            why="The folder of the workflow files, seen from where the server is started. Where there is "
            "none, the examples are there to try.",
        )
    )
    delete_completed_after_ms: int | None = field(
        metadata=read_from(
            name="ORQESTRA_DELETE_COMPLETED_AFTER",
            kind=AGE,
            default="7d",
            why="How long after its end a completed job, or run with its steps, is deleted. 7 days are enough to look "
            "at what went well. Its idempotency key goes with it.",
        )
    )
    delete_failed_after_ms: int | None = field(
        metadata=read_from(
            name="ORQESTRA_DELETE_FAILED_AFTER",
            kind=AGE,
            default="30d",
            why="The same for failed ones. 30 days outlast a holiday: somebody will ask why, and may retry it.",
        )
    )
    delete_cancelled_after_ms: int | None = field(
        metadata=read_from(
            name="ORQESTRA_DELETE_CANCELLED_AFTER",
            kind=AGE,
            default="30d",
            why="The same for cancelled ones. 30 days as for failed ones: a cancelled job can be retried too, and "
            "there are few.",
        )
    )
    connect_seconds: float = field(
        metadata=read_from(
            name="ORQESTRA_CONNECT_SECONDS",
            kind=seconds(0, HOUR_SECONDS),
            default="30",
            unit="seconds",
            why="How long a starting server tries to reach Postgres. 30 covers a service that is "
            "started together with it, and a wrong address is still soon told. Redis is not waited for.",
        )
    )
    worker_slots: int = field(
        metadata=read_from(
            name="WORKER_COUNT",
            kind=whole(1, SLOTS_MAX),
            default=setting_defaults.slots,
            shown_default="4 x CPUs",
            unit="slots",
            why="How many jobs a worker runs at once. Most commands wait more than they compute: "
            "four per CPU keep it busy without drowning it.",
        )
    )
    state_dir: Path = field(
        metadata=read_from(
            name="ORQESTRA_STATE_DIR",
            kind=FOLDER,
            default=setting_defaults.state_dir,
            shown_default="$XDG_STATE_HOME/orqestra, else ~/.local/state/orqestra",
            why="Where a worker keeps its identity and unsent results; a folder that a reboot leaves alone.",
        )
    )
    drain_seconds: float = field(
        metadata=read_from(
            name="ORQESTRA_DRAIN_SECONDS",
            kind=seconds(0, 24 * HOUR_SECONDS),
            default="30",
            unit="seconds",
            why="How long a stopping worker lets its commands run before it ends them and hands the "
            "jobs back. 30 lets short commands end and does not hold up an upgrade.",
        )
    )
    orphan_seconds: float = field(
        metadata=read_from(
            name="ORQESTRA_ORPHAN_SECONDS",
            kind=seconds(1, 24 * HOUR_SECONDS),
            default="600",
            unit="seconds",
            why="How long commands go on after their worker's daemon was killed or upgraded, until another one takes "
            "them over; then they are ended. 600 leaves time for an upgrade.",
        )
    )
    worker_environment: tuple[str, ...] = field(
        metadata=read_from(
            name="ORQESTRA_WORKER_ENV",
            kind=NAMES,
            default="",
            shown_default="none",
            why="Variables of the worker's own environment that commands see besides PATH, HOME, LANG "
            "and TZ. None, because that environment may hold secrets.",
        )
    )
    run_as: tuple[str, ...] = field(
        metadata=read_from(
            name="ORQESTRA_RUN_AS",
            kind=ACCOUNTS,
            default="",
            shown_default="nobody",
            why="Whom jobs may ask this worker to be run as (`run_as`), word for word; it needs to be root for that. "
            "Nobody, because whoever may submit could then be them.",
        )
    )
    ceilings: dict[str, int] = field(
        metadata=read_from(
            name="ORQESTRA_CEILINGS",
            kind=ceilings("timeout", "nice", *LIMITS_MAX),
            default="",
            shown_default="none",
            why="The most that a job of this worker may have, and what one has that asks for nothing: `timeout` in "
            "seconds and the limits of a job; of `nice` it is the least. None, because commands differ.",
        )
    )
    log_level: str = field(
        metadata=read_from(
            name="ORQESTRA_LOG_LEVEL",
            kind=choice(*LEVELS),
            default="info",
            why="The least level that is logged; info tells what starts, stops and goes wrong.",
        )
    )
    log_format: str = field(
        metadata=read_from(
            name="ORQESTRA_LOG_FORMAT",
            kind=choice(*FORMATS),
            default="auto",
            why="How logs look; auto is text on a terminal and JSON elsewhere.",
        )
    )

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, dotenv: Path | None = DOTENV, **flags: object) -> Self:
        """Return the settings from flags, environment, `.env` and defaults, the earlier ones first.

        `flags` are named as the fields; None and empty text count as not given, everywhere. `.env` is
        read but never exported. Raises BadSettings with the variable, its value and what is allowed.
        """
        environ = os.environ if environ is None else environ
        sources = (
            ("the command line", _flag_texts(flags)),
            ("the environment", environ),
            (str(dotenv), read_dotenv(dotenv)),
        )
        values: dict[str, Any] = {name: checked_value(variable, sources, environ) for name, variable in variables()}
        return cls(**values)

    def check_listen(self) -> None:
        """Raise BadSettings if the server would be reachable from other machines without leave."""
        for name in ("grpc_address", "http_address"):
            address: Address = getattr(self, name)
            if not (address.is_loopback or self.insecure):
                raise BadSettings(
                    f"{dict(variables())[name].name}='{address}' can be reached from other machines, and "
                    "whoever reaches it can run commands on the workers. Allowed: an address on "
                    "127.0.0.0/8, [::1] or localhost, or any with ORQESTRA_INSECURE=1"
                )


def variables() -> Iterator[tuple[str, Variable]]:
    """Yield every setting's field name and variable, in the order of the documentation."""
    for each in fields(Settings):
        yield each.name, each.metadata["variable"]


def _flag_texts(flags: Mapping[str, object]) -> dict[str, str]:
    names = {field_name: variable.name for field_name, variable in variables()}
    if unknown := flags.keys() - names.keys():
        raise TypeError(f"no such settings: {', '.join(sorted(unknown))}")
    return {names[field_name]: text(value) for field_name, value in flags.items()}
