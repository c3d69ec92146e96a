"""What is to be run, and what is told of it. The contracts are those of `_dispatch.pyi`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

KEY_END: Final = 1 << 62
# By their names; of these, memory_bytes and processes need control groups and hold nowhere else.
LIMITS: Final = frozenset(
    {"nice", "open_files", "file_bytes", "cpu_seconds", "address_space_bytes", "memory_bytes", "processes"}
)


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command to run."""

    key: int
    argv: Sequence[bytes]
    env: Sequence[tuple[bytes, bytes]]
    cwd: bytes | None = None
    stdin: bytes | None = None
    timeout_ms: int = 0
    grace_ms: int = 5000
    tag: bytes | None = None
    directory: bytes | None = None
    previous_output: bytes | None = None
    limits: Mapping[str, int] | None = None
    user: tuple[int, int, Sequence[int]] | None = None
    allow_background: bool = False

    def __post_init__(self) -> None:
        if self.key >= KEY_END:
            raise ValueError(f"key: {self.key} is not below 2 ** 62")
        for name in self.limits or ():
            if name not in LIMITS:
                raise ValueError(f'limits: "{name}" is none')


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a command did not run."""

    stage: str
    errno: int
    error: str


@dataclass(frozen=True, kw_only=True)
class Exit:
    """The end of a command.

    Members of its group can't be counted here: `killed_processes` and `left_processes` are 1 for any number.
    `max_rss_kb` is not known.
    """

    key: int
    tag: bytes
    reason: str
    exit_code: int | None = None
    signal: int | None = None
    error: str | None = None
    errno: int | None = None
    stage: str | None = None
    killed: bool = False
    timed_out: bool = False
    killed_processes: int = 0
    left_processes: int = 0
    stdout: bytes = b""
    stderr: bytes = b""
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    started_at_us: int = 0
    wall_us: int = 0
    user_us: int = 0
    system_us: int = 0
    max_rss_kb: int = 0

    def result(self, _attempt: tuple[int, int, int]) -> None:
        """Return None: whoever asks encodes it, since speed is not what this is for."""

    @property
    def truncated(self) -> bool:
        """Whether more came than was kept."""
        return self.stdout_bytes > len(self.stdout) or self.stderr_bytes > len(self.stderr)


@dataclass(frozen=True, kw_only=True)
class Live:
    """A piece of the output of a command that is followed."""

    key: int
    stream: Literal[1, 2]
    offset: int
    data: bytes
    total: int


@dataclass(frozen=True, kw_only=True)
class Gone:
    """An end that the disk has lost: never told here, where no disk has any."""

    key: int


@dataclass(frozen=True, kw_only=True)
class Stuck:
    """The kernel does not end these commands, some time after their KILL."""

    keys: list[int]


@dataclass(frozen=True, kw_only=True)
class Strays:
    """Processes that have left their command: never told here, where nobody looks for them."""

    pids: list[int]
