"""The hot path in Rust: bytes and columns in, bytes and columns out, one call per batch.

Nothing here calls back into Python. Input that breaks a contract is a `ValueError` that names the
field, where it is, its value and what is allowed; then nothing was changed.

Two packed formats, one entry after the other without separators:

    hint     25 bytes  lane as 8 lower-case hex digits, score digit (9 - priority), id as 16 hex digits
    delayed  38 bytes  due time in Unix ms as 13 decimal digits, then the hint

`backoff` and `outbox` are namespaces: classes with static methods only.
"""

from collections.abc import Sequence
from os import PathLike
from typing import Literal, final

__all__ = [
    "Assignment",
    "Command",
    "Demand",
    "Executor",
    "Exit",
    "Live",
    "Matcher",
    "Push",
    "Spool",
    "backoff",
    "outbox",
    "spawn_limit",
]

@final
class Matcher:
    """Which session gets which job: strict priority is Redis' part, fairness and credits are this one's.

    The credits of a session are its slots, plus the jobs it finished in the last 20 ms (at most 256),
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
        seeds: Sequence[int],
    ) -> list[int]:
        """Uniform integers from 0 to the ceilings, in ms: the same for the same seeds (64 bits, signed)."""

@final
class Command:
    """One command to run, in a session of its own, with no other descriptor than its standard three.

    `key` is the caller's name for it: below 2 ** 62, and free again once its Exit was taken. `argv[0]`
    is looked up in the PATH of `env` unless it has a slash. `env` is the whole environment. It runs in
    `cwd`, or where this process is, and reads `stdin`, or nothing. After `timeout_ms` (0: never) it is
    ended as by `Executor.cancel`, with `grace_ms` between TERM and KILL.
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
    ) -> Command: ...
    @property
    def key(self) -> int: ...

@final
class Executor:
    """Runs commands, each as a process group, on threads of its own. Every method returns at once.

    Each command that was taken gets exactly one Exit. Its end is that of its main process; what others of
    its group still write is read for `drain_ms`, then the group gets KILL. Of each output stream, the
    first `head_bytes` and the last `tail_bytes` are kept. Dropping it sends KILL to all that runs.

    Descendants that leave the session (setsid, double fork) are not found. OSError if there are no
    threads or descriptors to be had.
    """

    def __new__(
        cls, *, spawners: int = 2, head_bytes: int = 262144, tail_bytes: int = 786432, drain_ms: int = 2000
    ) -> Executor: ...
    def fileno(self) -> int:
        """A descriptor that is readable while reports wait, for `loop.add_reader`."""

    def start(self, commands: Sequence[Command]) -> None:
        """Take commands. ValueError if a key is in use, RuntimeError after `stop`: then none was taken.

        A command that can't be run is reported like any other, with the reason `spawn_failed`.
        """

    def cancel(self, keys: Sequence[int]) -> None:
        """Send TERM to their groups and KILL after their grace. What has not started never will.

        Keys of commands that have ended are passed over.
        """

    def kill(self, keys: Sequence[int]) -> None:
        """Send KILL to their groups now; for the rest as `cancel`."""

    def follow(self, key: int, from_offset_stdout: int, from_offset_stderr: int) -> None:
        """Report the output of a command while it runs, beginning with what is kept from the offsets on.

        Who does not take reports loses the oldest of it, and sees that by the offsets.
        """

    def unfollow(self, key: int) -> None:
        """Report no more live output of a command, nor what waits."""

    def reports(self) -> list[Exit | Live]:
        """Take all reports that wait; the live output of a command comes before its end."""

    def running(self) -> int:
        """How many commands were taken whose Exit is not among the reports yet."""

    def stop(self, kill: bool) -> None:
        """Take no more commands, and report those that have not started as cancelled.

        With `kill` send KILL to all, and wait for their end, at most five seconds; else they run on. The
        threads end with the last command. Reports can still be taken.
        """

@final
class Exit:
    """The end of a command.

    `reason` is `timeout` or `cancelled` only if TERM or KILL was sent before the main process ended;
    `exit_code` or `signal` say how it ended, whatever the reason. Both are None if it never ran, or if
    something else in this process reaped it (stage `reap`). `killed`: KILL was needed.

    If it was not started (`spawn_failed`), `error` is a sentence, `errno` the error, and `stage` where it
    happened: `command` (can't be expressed), `cwd` and `exec`, mostly the command's own fault; `stdin`,
    `pipe`, `fork`, `setup` and `watch`, this machine's.

    `stdout` and `stderr` are what was kept, byte-exact; `stdout_bytes` and `stderr_bytes` how much came;
    `truncated` if that is more. `started_at_us` is in Unix time, 0 if it never ran; `wall_us` is the time of
    the main process; `user_us`, `system_us` and `max_rss_kb` are of it and of the descendants that it
    waited for. `max_rss_kb` is 0, unknown, where it is not clearly above the peak of this process.
    """

    @property
    def key(self) -> int: ...
    @property
    def reason(self) -> Literal["exited", "signalled", "timeout", "cancelled", "spawn_failed"]: ...
    @property
    def exit_code(self) -> int | None: ...
    @property
    def signal(self) -> int | None: ...
    @property
    def error(self) -> str | None: ...
    @property
    def errno(self) -> int | None: ...
    @property
    def stage(
        self,
    ) -> Literal["command", "stdin", "pipe", "fork", "setup", "cwd", "exec", "watch", "reap"] | None: ...
    @property
    def killed(self) -> bool: ...
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
    """A piece of the output of a command that is followed: of `stream` 1 (stdout) or 2 (stderr), at `offset`."""

    @property
    def key(self) -> int: ...
    @property
    def stream(self) -> Literal[1, 2]: ...
    @property
    def offset(self) -> int: ...
    @property
    def data(self) -> bytes: ...

@final
class Spool:
    """Keeps records, opaque bytes with a key each, on disk until they are deleted.

    Every method but `close` returns at once; a thread writes. What waits is one group and one sync, and
    while that is under way the next group gathers. Files in `directory`: segments up to `segment_bytes`,
    removed oldest first when nothing in them is wanted, and rewritten when most of them is not; `aside/`.

    The caller has the directory for itself. OSError if it can't be used.
    """

    def __new__(cls, directory: str | PathLike[str], *, segment_bytes: int = 8388608) -> Spool: ...
    @property
    def torn(self) -> int:
        """How many segments, when this was opened, ended in the middle of a record. That end was cut off."""

    @property
    def damaged(self) -> int:
        """At how many places in segments, when this was opened, stood what was never written.

        The record there is lost; all others are there.
        """

    def recovered(self) -> list[tuple[int, bytes]]:
        """Take the records that were there when this was opened, oldest first. The second call has none.

        One that was deleted by a process that was killed shortly afterwards may be among them.
        """

    def fileno(self) -> int:
        """A descriptor that is readable while `take` has something new, for `loop.add_reader`."""

    def append(self, records: Sequence[tuple[int, bytes]]) -> None:
        """Take records to be written. No key (below 2 ** 64) is used twice. ValueError beyond 256 MiB each."""

    def delete(self, keys: Sequence[int]) -> None:
        """Forget these records, whether they are durable yet or not. Unknown keys are passed over."""

    def set_aside(self, key: int) -> None:
        """Delete a durable record and keep its bytes in `aside/`, to be removed by the first start a day later.

        Beyond 1000 such files nothing more is kept.
        """

    def take(self) -> tuple[list[int], int | None]:
        """Take the keys that have become durable since the last call, and the error number while none can.

        While there is trouble all that is not durable is kept and tried again each second.
        """

    def close(self) -> None:
        """Write what waits, end the thread and wait for that. What is appended afterwards is never written.

        A disk that does not answer is waited for for two seconds; nobody may open the directory then while
        this process lives.
        """

def spawn_limit(argv: Sequence[bytes], threads: int, seconds: float) -> float:
    """Start `argv` and wait for its end, again and again on bare threads; return how many ended a second.

    Nothing is captured or supervised, and how a command ends does not matter: this is the limit that
    what runs jobs is measured against. Other Python threads run meanwhile. OSError if it can't be
    started; ValueError unless there are 1 to 64 threads and up to 600 seconds.
    """
