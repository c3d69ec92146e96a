"""The hot path in Rust: bytes and columns in, bytes and columns out, one call per batch.

Nothing here calls back into Python. Input that breaks a contract is a `ValueError` that names the
field, where it is, its value and what is allowed; then nothing was changed.

Two packed formats, one entry after the other without separators:

    hint     25 bytes  lane as 8 lower-case hex digits, score digit (9 - priority), id as 16 hex digits
    delayed  38 bytes  due time in Unix ms as 13 decimal digits, then the hint

`backoff`, `outbox` and `wire` are namespaces: classes with static methods only. The messages that `wire` and
its classes read and write are those of `proto/`; an attempt is a tuple of job, fence and token.
"""

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, Final, Literal, Protocol, final

__all__ = [
    "Assigned",
    "Assignment",
    "Attempts",
    "Claimed",
    "Command",
    "Demand",
    "Exit",
    "Gone",
    "Jobs",
    "Live",
    "Matcher",
    "Owed",
    "Push",
    "Results",
    "Strays",
    "Stuck",
    "Successes",
    "Supervisor",
    "backoff",
    "outbox",
    "spawn_limit",
    "supervise",
    "wire",
]

@final
class Matcher:
    """Which session gets which job: strict priority is Redis' part, fairness and credits are this one's.

    The credits of a session are its slots, plus the jobs it finished in the last 80 ms in which it had any (at
    most 1000, none of more than a second ago), minus the jobs it has; none with 0 slots. A profile is the
    sessions with the same queues and the same labels; it serves the lanes of its queues whose required labels it
    has. With `pack`, one session is filled before the next; else jobs go round the sessions with credit.

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

    def suspect_all(self, *, filled: bool = False) -> None:
        """All lanes may have something. Unless they are `filled`, nobody said so, and `direct` goes on."""

    def found_empty(self, lanes: Sequence[int]) -> None:
        """The take after the last demand found these of its lanes empty, and something in the others.

        They are not asked again until they are woken. Those woken since that demand still are asked.
        """

    def found_partial(self, lanes: Sequence[int]) -> None:
        """The take after the last demand found that Postgres holds more of these lanes than Redis.

        That holds until they are woken.
        """

    def direct(self, lane: int, count: int, now_ms: int) -> list[int]:
        """Take credit for at most `count` new jobs of a lane, and return the session of each.

        Only of profiles for which nothing waits: each lane that they serve was found empty, was not woken since,
        and is not partial.
        """

    def room(self, lane: int, now_ms: int) -> tuple[int, int, int, int]:
        """What new jobs of a lane would meet at the sessions that serve it, those with a backlog too.

        For how many of them `direct` would take credit, how many jobs were given out and have not ended, how many
        finished lately, within the 80 ms; and how many `assign` has given out ever, whatever their lane.
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
    def lanes(self) -> list[int]:
        """The lanes of all the hints, each once."""

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
class wire:
    """Messages of the hot path. A `ValueError` says that bytes are no message at all."""

    @staticmethod
    def results(session_id: int, message: bytes, at_most: int = 1000) -> list[Results] | None:
        """Return the results of a `WorkerMessage` of that session, in parts of at most so many; None: another one."""

    @staticmethod
    def result_acks(parts: Sequence[bytes]) -> bytes:
        """Return the `ServerMessage` with the answers of `ResultAcks`, each part any number of them, encoded."""

    @staticmethod
    def assign(number: int, jobs: bytes) -> bytes:
        """Return the `ServerMessage` that assigns jobs which `Claimed.encode` has encoded."""

    @staticmethod
    def assigned(message: bytes, *, apart: bool) -> Assigned | None:
        """Return what a `ServerMessage` assigns; None: another one. `noop` jobs are told apart only if asked for."""

    @staticmethod
    def job_specs(field: int, shapes: Sequence[bytes], payloads: Sequence[bytes], keys: Sequence[str | None]) -> bytes:
        """Return `JobSpec`s, an entry of each column for one, as that field of a request."""

    @staticmethod
    def jobs(request: bytes, field: int) -> Jobs:
        """Return the `JobSpec`s in that field of a request. ValueError, too, if a key is no UTF-8."""

@final
class Results:
    """Results that came in one message of one session."""

    @property
    def session_id(self) -> int:
        """The session."""

    def __len__(self) -> int: ...
    def attempts(self) -> list[tuple[int, int, int]]:
        """Return the attempts that ended."""

    def others(self) -> list[bytes]:
        """Return those that are no plain success, each a `Result`.

        A plain success exited with 0, carries all its output, and nothing of it was killed or left behind.
        """

@final
class Successes:
    """The plain successes of many messages, for one statement: of each job the first."""

    def __new__(cls, messages: Sequence[Results]) -> Successes: ...
    def __len__(self) -> int: ...
    def columns(self) -> dict[str, list[Any]]:
        """Return the parameters of `settle_completed`; a column of nothing but zeros or empty bytes is empty."""

    def settle(
        self, done: Sequence[int]
    ) -> tuple[list[tuple[int, bytes]], list[tuple[int, tuple[int, int, int], bytes, bytes, list[int]]]]:
        """Split by the jobs that the statement has completed.

        Returns the answers to their sessions, as parts for `wire.result_acks`, and all others: those that were
        not done, and later ones of the same job. Of those: session, attempt, stdout, stderr, and usage as wall,
        user and system time in microseconds and peak memory in kB.
        """

class _Row(Protocol):
    def __getitem__(self, name: str, /) -> Any: ...

@final
class Claimed:
    """Claimed jobs by session."""

    def __new__(cls, columns: _Row) -> Claimed:
        """Take the columns of `claim_jobs`. ValueError if their lengths differ."""

    @staticmethod
    def direct(columns: _Row) -> Claimed:
        """Take what was stored as running out of the columns of a submit: those jobs that have a session.

        For each job `ids`, `session_ids`, `kind_of` (from 1), `payloads`; for each kind `types`, `timeouts_ms`,
        `graces_ms` and, unless they are None, `run_ids`, `step_keys`, `previous_ids`; `tokens` by session, and
        one `fence`. ValueError if they do not fit together.
        """

    def arrange(self, ids: Sequence[int]) -> None:
        """Have the jobs of each session sent in the order of these, which names all; else it is that of the columns."""

    def __len__(self) -> int: ...
    @property
    def ids(self) -> list[int]:
        """The jobs."""

    @property
    def session_ids(self) -> list[int]:
        """The sessions that jobs were claimed for, each once."""

    @property
    def previous_ids(self) -> list[int]:
        """The jobs whose output is given to those claimed."""

    def attempts(self, session_id: int) -> list[tuple[int, int, int]]:
        """Return what was claimed for a session."""

    def refused(self, ids: Sequence[int], session_ids: Sequence[int]) -> tuple[list[int], list[int]]:
        """Return those of the wanted jobs that were not claimed, and the session of each."""

    def encode(self, session_id: int, previous: Mapping[int, bytes], most_jobs: int, most_bytes: int) -> list[bytes]:
        """Return the jobs of a session for `wire.assign`, in messages of at most so many jobs and about so many bytes.

        `previous` holds the outputs of `previous_ids`.
        """

@final
class Attempts:
    """A set of attempts."""

    def __new__(cls) -> Attempts: ...
    def __len__(self) -> int: ...
    def __contains__(self, attempt: tuple[int, int, int], /) -> bool: ...
    def all(self) -> list[tuple[int, int, int]]:
        """Return them, in no order."""

    def add(self, attempts: Sequence[tuple[int, int, int]]) -> None:
        """Add attempts."""

    def add_claimed(self, claimed: Claimed, session_id: int) -> None:
        """Add what was claimed for a session."""

    def remove(self, attempts: Sequence[tuple[int, int, int]]) -> int:
        """Remove attempts; return how many of them were here."""

    def remove_reported(self, results: Results) -> int:
        """Remove the attempts that ended; return how many of them were here."""

@final
class Assigned:
    """What a worker is assigned by one message."""

    @property
    def number(self) -> int:
        """What the worker acknowledges."""

    @property
    def noops(self) -> list[tuple[int, int, int]]:
        """Attempts at `noop` jobs that were told apart."""

    @property
    def noop_count(self) -> int:
        """How many those are."""

    @property
    def others(self) -> list[bytes]:
        """The others, each an `Assignment`."""

@final
class Owed:
    """The results that a worker owes, in the order in which they came up, until they are acknowledged."""

    def __new__(cls) -> Owed: ...
    def __len__(self) -> int: ...
    def __contains__(self, attempt: tuple[int, int, int], /) -> bool: ...
    def attempts(self) -> list[tuple[int, int, int]]:
        """Return the attempts, in order."""

    def add(self, attempt: tuple[int, int, int], result: bytes, *, held_back: bool = False) -> None:
        """Owe a `Result`, in place of an older one. If it is held back, it is not sent before `release`."""

    def add_noops(self, assigned: Assigned, now_us: int) -> None:
        """Owe the results of the `noop` jobs that were assigned; what is owed already is passed over."""

    def release(self, attempt: tuple[int, int, int]) -> None:
        """Let a result be sent that was held back."""

    def take(self, most_jobs: int, most_bytes: int) -> bytes | None:
        """Return the next `WorkerMessage` of results, of at most so many jobs and about so many bytes, or of one.

        None: all that may be sent was taken on this stream.
        """

    def offer_again(self) -> None:
        """Begin a new stream: what was taken and not acknowledged is to be sent again."""

    def remove(self, attempt: tuple[int, int, int]) -> bool:
        """Owe a result no longer; return whether it was here."""

    def acknowledge(self, message: bytes) -> list[tuple[tuple[int, int, int], int, bool]] | None:
        """Owe nothing that a `ServerMessage` with `ResultAcks` answers; None: it is another one.

        Returns the answers that matter to others: attempt, verdict and whether it was owed. Those are all but the
        expected ones to `noop` jobs.
        """

@final
class Jobs:
    """The jobs of one request. A shape is all of a `JobSpec` but its payload and its key, encoded."""

    def __len__(self) -> int: ...
    @property
    def number(self) -> int:
        """The number of the request; 0 if it has none."""

    @property
    def shapes(self) -> list[bytes]:
        """The shapes, each once."""

    @property
    def shape_of(self) -> list[int]:
        """The index of each job's shape."""

    @property
    def payloads(self) -> list[bytes]:
        """The payload of each job; empty where it has none."""

    @property
    def keys(self) -> list[str | None]:
        """The key of each job; an empty list if none has one."""

    def different(self) -> list[tuple[int, int, bytes]]:
        """Return the first job of each different shape and payload: its index, its shape's, and the payload."""

    def bad_key(self, most_chars: int) -> int | None:
        """Return the first job whose key is longer than that or holds a control character."""

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
    happened: `command` (can't be expressed), `user`, `limit`, `cwd` and `exec`, mostly the command's own fault;
    `directory`, `stdin`, `pipe`, `fork`, `setup` and `watch`, this machine's.

    `stdout` and `stderr` are what was kept, byte-exact; `stdout_bytes` and `stderr_bytes` how much came;
    `truncated` if that is more. `started_at_us` is in Unix time, 0 if it never ran; `wall_us` is the time of
    the main process; `user_us`, `system_us` and `max_rss_kb` are of it and of the descendants that it
    waited for. `max_rss_kb` is 0, unknown, where it is not clearly above the peak of this process.
    """

    def result(self, attempt: tuple[int, int, int]) -> bytes | None:
        """Return the `Result` of that attempt, if it ended by itself and all of its output fits in; else None."""

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
