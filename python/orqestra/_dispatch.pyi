"""The hot path in Rust: bytes and columns in, bytes and columns out, one call per batch.

Nothing here calls back into Python. Input that breaks a contract is a `ValueError` that names the
field, where it is, its value and what is allowed; then nothing was changed.

Two packed formats, one entry after the other without separators:

    hint     25 bytes  lane as 8 lower-case hex digits, score digit (9 - priority), id as 16 hex digits
    delayed  38 bytes  due time in Unix ms as 13 decimal digits, then the hint

`backoff` and `outbox` are namespaces: classes with static methods only.
"""

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Final, Literal, final

__all__ = [
    "Assignment",
    "Command",
    "Demand",
    "Exit",
    "Gone",
    "Live",
    "Matcher",
    "Push",
    "Strays",
    "Stuck",
    "Supervisor",
    "backoff",
    "outbox",
    "spawn_limit",
    "supervise",
]

@final
class Matcher:
    """Which session gets which job: strict priority is Redis' part, fairness and credits are this one's.

    The credits of a session are its slots, plus the jobs it finished in the last 80 ms (at most 256),
    minus the jobs it has; none with 0 slots. A profile is the sessions with the same queues and the
    same labels; it serves the lanes of its queues whose required labels it has. With `pack`, one
    session is filled before the next; else jobs go round the sessions with credit.

    One thread uses it, with one take under way at a time. The clock is any that counts milliseconds
    and never runs back. Sessions that are not open are passed over: they closed meanwhile.
    """

    def __new__(cls, *, pack: bool = False) -> Matcher: ...
    def set_lane(self, lane: int, queue: str, requires: Sequence[str]) -> None:
        """Make a lane known, with the labels (`key=value`) it requires. Saying it again does nothing.

        A new lane may have something. ValueError if it is known with another queue or labels.
        """

    def open_session(self, session: int, slots: int, queues: Sequence[str], labels: Sequence[str]) -> None:
        """Begin to give jobs to a session. ValueError if it is open already."""

    def close_session(self, session: int) -> None:
        """Give it nothing more and forget it. What it had is the caller's to bring back."""

    def set_slots(self, session: int, slots: int) -> None:
        """Set how many jobs it runs at once. 0: it gets nothing more. May be fewer than it has."""

    def hold(self, session: int, n: int) -> None:
        """Count `n` jobs as given to it, which it had before it opened."""

    def finished(self, sessions: Sequence[int], now_ms: int) -> None:
        """For each entry, one job of that session ended."""

    def release(self, sessions: Sequence[int]) -> None:
        """For each entry, one assigned job did not start: its credit is back, nothing was finished."""

    def wake(self, lanes: Sequence[int]) -> list[int]:
        """These lanes may have something. Return those that are not known, which have to be set."""

    def suspect_all(self) -> None:
        """All lanes may have something."""

    def found_empty(self, lanes: Sequence[int]) -> None:
        """The take after the last demand found these lanes empty.

        They are not asked again until they are woken. Those woken since that demand still are asked.
        """

    def demand(self, now_ms: int, max_lanes: int = 64, max_hints: int = 1000) -> list[Demand]:
        """What could be taken now: the profiles with credit and lanes that may have something.

        Profiles share `max_hints` and `max_lanes` fairly, the queues of a profile its share of lanes.
        From call to call it goes on behind the lanes last named, and another one comes first.
        """

    def has_credit(self) -> bool:
        """Whether any session could be given a job, whatever there is to be given."""

    def assign(self, profile: int, hints: bytes) -> Assignment:
        """Give packed hints to the sessions of a profile, in their order, as far as there is credit.

        All are left over if the profile has no session any more. ValueError if a hint is malformed.
        """

    def free(self, session: int) -> int:
        """The credits of a session; 0 if it is not open."""

    def stats(self) -> dict[str, int]:
        """How many `sessions`, `profiles`, `lanes`, `suspects` (lanes to ask) and `credits` there are."""

@final
class Demand:
    """What one profile could take: `budget` hints from `lanes`.

    `lanes` are decimal ids with commas within a queue and semicolons between queues: `b"12,15;7"`.
    """

    @property
    def profile(self) -> int: ...
    @property
    def budget(self) -> int: ...
    @property
    def lanes(self) -> bytes: ...

@final
class Assignment:
    """Who gets what: the job `ids[i]` goes to `sessions[i]`; `leftover` are the hints without credit."""

    @property
    def ids(self) -> list[int]: ...
    @property
    def sessions(self) -> list[int]: ...
    @property
    def leftover(self) -> bytes: ...

@final
class outbox:
    """The way of hints from Postgres to Redis.

    A row of the outbox is entries of 22 bytes, big-endian: id i64, lane i32, priority i16, due_ms i64.
    """

    @staticmethod
    def encode(ids: Sequence[int], lanes: Sequence[int], priorities: Sequence[int], due_ms: Sequence[int]) -> bytes:
        """Encode a batch into the entries of one outbox row; `due_ms` is 0 where it is due now.

        ValueError for columns of different lengths, a negative value, a lane beyond 31 bits, a priority
        above 9, or a due time beyond 13 digits.
        """

    @staticmethod
    def drain(rows: Sequence[bytes], now_ms: int, max_hints: int = 1000) -> list[Push]:
        """Plan the pushes of whole rows, oldest first, with at most `max_hints` hints each.

        Each job appears once, as the last row says. It is delayed if it is due after `now_ms`, else
        ready; ready ones come first. ValueError for a malformed row, by its index.
        """

    @staticmethod
    def regroup(hints: bytes, max_hints: int = 1000) -> list[Push]:
        """Plan the pushes of packed hints that go back to their lanes. All are ready."""

    @staticmethod
    def ids(hints: bytes) -> list[int]:
        """The jobs of packed hints, in their order."""

@final
class Push:
    """What one call of the push script stores.

    `ready` are packed hints by lane, score and id; `delayed` are packed delayed hints by due time, then
    id; `lanes` are the lanes of `ready`, ascending.
    """

    @property
    def ready(self) -> bytes: ...
    @property
    def delayed(self) -> bytes: ...
    @property
    def lanes(self) -> list[int]: ...

@final
class backoff:
    """How long a failed attempt waits for the next. Columns of equal length in, one column out.

    The ceiling after attempt n (1, 2, ...) failed is min(cap_ms, base_ms * factor ** (n - 1)). ValueError
    for a negative time, a factor below 1, or an attempt below 1, by its row.
    """

    @staticmethod
    def ceilings(
        base_ms: Sequence[int], factor: Sequence[float], cap_ms: Sequence[int], attempts: Sequence[int]
    ) -> list[int]:
        """The longest delays, in ms."""

    @staticmethod
    def delays(
        base_ms: Sequence[int],
        factor: Sequence[float],
        cap_ms: Sequence[int],
        attempts: Sequence[int],
        jitters: Sequence[str],
        seeds: Sequence[int],
    ) -> list[int]:
        """Uniform integers up to the ceilings, in ms: the same for the same seeds (64 bits, signed).

        From 0 where the jitter is `full`, from half of the ceiling (rounded down) where it is `equal`, from the
        ceiling itself where it is `none`. ValueError for any other word, by its row.
        """

@final
class Command:
    """One command to run, in a session of its own, with no other descriptor than its standard three.

    `key` is the caller's name for it: below 2 ** 62, and in one worker's directory never used again.
    `argv[0]` is looked up in the PATH of `env` unless it has a slash. `env` is the whole environment. It runs in
    `cwd`, or where this process is, and reads `stdin`, or nothing. After `timeout_ms` (0: never) it is
    ended as by `Supervisor.cancel`, with `grace_ms` between TERM and KILL. `tag` comes back with its Exit.

    In `directory` it is given a folder of its own, empty but for a file with the `previous_output`, which goes
    with all in it when it has ended. It is told of them as ORQESTRA_TMPDIR, as TMPDIR unless `env` has one,
    and as ORQESTRA_PREVIOUS_OUTPUT_FILE. `limits` are by name: nice, open_files, file_bytes, cpu_seconds,
    address_space_bytes, memory_bytes, processes. `user` is (uid, gid, further groups). With
    `allow_background` what it leaves running when it ends by itself stays.
    """

    def __new__(
        cls,
        *,
        key: int,
        argv: Sequence[bytes],
        env: Sequence[tuple[bytes, bytes]],
        cwd: bytes | None = None,
        stdin: bytes | None = None,
        timeout_ms: int = 0,
        grace_ms: int = 5000,
        tag: bytes | None = None,
        directory: bytes | None = None,
        previous_output: bytes | None = None,
        limits: Mapping[str, int] | None = None,
        user: tuple[int, int, Sequence[int]] | None = None,
        allow_background: bool = False,
    ) -> Command: ...
    @property
    def key(self) -> int: ...

def supervise(
    directory: str | PathLike[str],
    *,
    daemon: int | None,
    version: str,
    incarnation: str,
    orphan_ms: int,
    spawners: int = 2,
    head_bytes: int = 262144,
    tail_bytes: int = 786432,
    drain_ms: int = 2000,
    segment_bytes: int = 8388608,
    reached: Callable[[str], object] | None = None,
) -> None:
    """Be the supervisor of a worker's `directory`; return when it is over. For a process of its own.

    Commands run as the children of this process, each as a session, and all that they leave behind comes
    to it. An end is that of the main process; what others still write is read for `drain_ms`, and then they
    get KILL. Of each output stream, the first `head_bytes` and the last `tail_bytes` are kept. Ends are in
    `directory`/spool before they are told, and until they are forgotten, in segments up to `segment_bytes`.

    `daemon` is the descriptor of a connection to the daemon that starts it; later ones come to the socket
    in `directory`. Without a daemon commands go on for `orphan_ms`, and are then ended. `version` and
    `incarnation` are told to all daemons. `reached` is for tests: it is called with the names of moments,
    by whichever thread passes them.

    OSError if the directory can't be used, or if another supervisor lives in it.
    """

@final
class Supervisor:
    """The daemon's end of the line to a supervisor; takes over a connected socket. Every method returns at once.

    OSError if nobody answers there, or what answers is no supervisor. If `protocol` is not `PROTOCOL`, it
    does not listen to us.
    """

    PROTOCOL: Final[int]
    def __new__(cls, socket_fd: int, *, version: str, orphan_ms: int) -> Supervisor: ...
    @property
    def protocol(self) -> int: ...
    @property
    def version(self) -> str: ...
    @property
    def incarnation(self) -> str: ...
    @property
    def pid(self) -> int: ...
    @property
    def torn(self) -> int:
        """How many segments of its spool, at its start, ended in the middle of a record. That end was cut off."""

    @property
    def damaged(self) -> int:
        """At how many places in its spool, at its start, stood what was never written. That is lost."""

    @property
    def held(self) -> list[tuple[int, bytes, bool]]:
        """What it held when this was made: (key, tag, whether it has ended). Of those that have, an Exit follows."""

    @property
    def health(self) -> str:
        """What it suffered from when `reports` was called last; empty: nothing."""

    @property
    def closed(self) -> bool:
        """Whether it has ended: there will be no more reports."""

    def fileno(self) -> int:
        """A descriptor that is readable while reports wait, for `loop.add_reader`. The first may be there at once."""

    def start(self, commands: Sequence[Command]) -> None:
        """Have commands run.

        A command that can't be run is reported like any other, with the reason `spawn_failed`; one whose key
        is in use is passed over.
        """

    def bound(self, running: int, until_us: int) -> None:
        """Have commands start while fewer than `running` run, and until this time, in order.

        The time is of CLOCK_BOOTTIME, in microseconds. Without any call there are no bounds.
        """

    def withdraw(self, keys: Sequence[int]) -> None:
        """Start none of these that still wait: their Exits say `cancelled`, and that they never ran."""

    def cancel(self, keys: Sequence[int]) -> None:
        """Send TERM to their processes and KILL after their grace. What has not started never will.

        Keys of commands that have ended are passed over.
        """

    def kill(self, keys: Sequence[int]) -> None:
        """Send KILL to their processes now; for the rest as `cancel`."""

    def follow(self, key: int, from_offset_stdout: int, from_offset_stderr: int) -> None:
        """Report the output of a command while it runs, beginning with what is kept from the offsets on.

        Who does not take reports misses some of it, and sees that by the offsets.
        """

    def unfollow(self, key: int) -> None:
        """Report no more live output of a command."""

    def forget(self, keys: Sequence[int]) -> None:
        """Keep the ends of these commands no longer."""

    def set_aside(self, keys: Sequence[int]) -> None:
        """Keep their ends no longer, but for a day in `spool/aside/`, where nobody reads them."""

    def stop(self) -> None:
        """Have it take no more commands, tell the ends that are not durable, and end once `hang_up` was called."""

    def hang_up(self) -> None:
        """Say nothing more. After `stop` it ends with the last command, else it awaits another daemon."""

    def reports(self) -> list[Exit | Live | Gone | Stuck | Strays]:
        """Take all reports that wait; the live output of a command comes before its end."""

@final
class Exit:
    """The end of a command.

    `reason` is `timeout` or `cancelled` only if TERM or KILL was sent before the main process ended, and
    `killed_after_grace` if TERM was ignored for the whole grace; `timed_out` tells then which it was.
    `exit_code` or `signal` say how it ended, whatever the reason. Both are None if it never ran, or if
    something else in its process reaped it (stage `reap`). `killed`: KILL was needed. `killed_processes` of
    its descendants got KILL, and `left_processes` stay: because they may, or can't be ended. `tag` is the
    command's.

    If it was not started (`spawn_failed`), `error` is a sentence, `errno` the error, and `stage` where it
    happened: `command` (can't be expressed), `user`, `cwd` and `exec`, mostly the command's own fault;
    `directory`, `stdin`, `pipe`, `fork`, `setup` and `watch`, this machine's.

    `stdout` and `stderr` are what was kept, byte-exact; `stdout_bytes` and `stderr_bytes` how much came;
    `truncated` if that is more. `started_at_us` is in Unix time, 0 if it never ran; `wall_us` is the time of
    the main process; `user_us`, `system_us` and `max_rss_kb` are of it and of the descendants that it
    waited for. `max_rss_kb` is 0, unknown, where it is not clearly above the peak of this process.
    """

    @property
    def key(self) -> int: ...
    @property
    def tag(self) -> bytes: ...
    @property
    def reason(self) -> str: ...
    @property
    def exit_code(self) -> int | None: ...
    @property
    def signal(self) -> int | None: ...
    @property
    def error(self) -> str | None: ...
    @property
    def errno(self) -> int | None: ...
    @property
    def stage(self) -> str | None: ...
    @property
    def killed(self) -> bool: ...
    @property
    def timed_out(self) -> bool: ...
    @property
    def killed_processes(self) -> int: ...
    @property
    def left_processes(self) -> int: ...
    @property
    def stdout(self) -> bytes: ...
    @property
    def stderr(self) -> bytes: ...
    @property
    def stdout_bytes(self) -> int: ...
    @property
    def stderr_bytes(self) -> int: ...
    @property
    def truncated(self) -> bool: ...
    @property
    def started_at_us(self) -> int: ...
    @property
    def wall_us(self) -> int: ...
    @property
    def user_us(self) -> int: ...
    @property
    def system_us(self) -> int: ...
    @property
    def max_rss_kb(self) -> int: ...

@final
class Live:
    """A piece of the output of a command that is followed: of `stream` 1 (stdout) or 2 (stderr), at `offset`.

    `total` is how many bytes the stream had when it was taken.
    """

    @property
    def key(self) -> int: ...
    @property
    def stream(self) -> Literal[1, 2]: ...
    @property
    def offset(self) -> int: ...
    @property
    def data(self) -> bytes: ...
    @property
    def total(self) -> int: ...

@final
class Gone:
    """A command has ended, and its end can't be read from the disk any more."""

    @property
    def key(self) -> int: ...

@final
class Stuck:
    """The kernel does not end these commands, 5 s after their KILL. Each is told once, and keeps its place."""

    @property
    def keys(self) -> list[int]: ...

@final
class Strays:
    """Of these processes can't be told which command they come from. They get KILL when no command runs."""

    @property
    def pids(self) -> list[int]: ...

def spawn_limit(argv: Sequence[bytes], threads: int, seconds: float) -> float:
    """Start `argv` and wait for its end, again and again on bare threads; return how many ended a second.

    Nothing is captured or supervised, and how a command ends does not matter: this is the limit that
    what runs jobs is measured against. Other Python threads run meanwhile. OSError if it can't be
    started; ValueError unless there are 1 to 64 threads and up to 600 seconds.
    """
