"""The payload of a `shell` job: what is run, with which environment, where and with which input.

    {"command": "make all"}                     run by /bin/sh -c
    {"argv": ["/usr/bin/make", "all"]}          run without a shell
    ... "env": {"NAME": "value"}, "cwd": "/directory", "stdin": "text"
    ... "nice": 10, "run_as": "user:group"      lower its priority, give up the worker's user
    ... "allow_background": true                what it leaves running is not ended with it
    ... "limits": {"open_files": 256, "file_bytes": 1048576, "cpu_seconds": 60, "address_space_bytes": 4294967296,
                   "memory_bytes": 536870912, "processes": 64}

The server checks it at submit, the worker reads it again before it runs the command.
"""

import re
from typing import Final

import msgspec

from orqestra.model import limits
from orqestra.model.errors import InvalidInput
from orqestra.model.size import parse_size

SHELL: Final = "/bin/sh"
_ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ACCOUNT: Final = r"(?:[a-z_][a-z0-9_-]{0,31}|0|[1-9][0-9]{0,9})"
_RUN_AS: Final = re.compile(rf"({_ACCOUNT})(?::({_ACCOUNT}))?")
_WHOLE: Final = re.compile(r"[0-9]{1,18}")
_ID_MAX: Final = 2**32 - 2  # the one above it means "no change" to setuid
# Where in the payload a value has another type: `... - at `$.limits.open_files``.
_AT: Final = re.compile(r"(?P<problem>.*) - at `\$\.(?P<path>[a-z_.]+).*`", re.DOTALL)


class ResourceLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """What a command and its descendants may use; None: as much as the worker may. Each is at least 1.

    `memory_bytes` and `processes` are of all of them together, the others of each process.
    """

    open_files: int | None = None
    file_bytes: int | None = None
    cpu_seconds: int | None = None
    address_space_bytes: int | None = None
    memory_bytes: int | None = None
    processes: int | None = None


LIMITS_MAX: Final = {
    "open_files": limits.LIMIT_OPEN_FILES_MAX,
    "file_bytes": limits.LIMIT_BYTES_MAX,
    "cpu_seconds": limits.TIMEOUT_MAX_SECONDS,
    "address_space_bytes": limits.LIMIT_BYTES_MAX,
    "memory_bytes": limits.LIMIT_BYTES_MAX,
    "processes": limits.LIMIT_PROCESSES_MAX,
}


class ShellPayload(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A command to run. Exactly one of `command` and `argv` is given. `nice` is added to the worker's own."""

    command: str | None = None
    argv: tuple[str, ...] | None = None
    env: dict[str, str] = {}
    cwd: str | None = None
    stdin: str | None = None
    nice: int | None = None
    run_as: str | None = None
    allow_background: bool = False
    limits: ResourceLimits | None = None

    def arguments(self) -> list[str]:
        """Return the argument vector, argument zero first."""
        if self.argv is not None:
            return list(self.argv)
        return [SHELL, "-c", self.command or ""]


_decoder: Final = msgspec.json.Decoder(ShellPayload)


def parse_shell(payload: bytes) -> ShellPayload:
    """Decode and check a payload.

    Raises:
        InvalidInput: naming the field of the payload, the value and what is allowed.
    """
    try:
        shell = _decoder.decode(payload)
    except msgspec.ValidationError as error:
        raise _refused_type(error) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput("payload", f"not JSON: {error}") from error
    _check(shell)
    # JSON is never shorter than what it says.
    if len(payload) > limits.ARGUMENT_BYTES:
        _check_lengths(shell)
    return shell


def parse_limit(name: str, text: str, *, field: str) -> int:
    """Return the value of a limit as people write it: a size where the limit is one of bytes, else a number.

    Raises:
        InvalidInput: naming `field`, the value and what is allowed.
    """
    if name not in LIMITS_MAX:
        shown = name[: limits.NAME_CHARS]
        raise InvalidInput(field, f"{shown!r} is not known; allowed are {', '.join(LIMITS_MAX)}")
    if name.endswith("_bytes"):
        return parse_size(text, field=field)
    if not _WHOLE.fullmatch(text):
        raise InvalidInput(field, f"{text[: limits.NAME_CHARS]!r} is not a whole number")
    return int(text)


def _check(shell: ShellPayload) -> None:
    if (shell.command is None) == (shell.argv is None):
        both = shell.command is not None
        raise InvalidInput("payload", f"needs either command or argv, {'not both' if both else 'and has neither'}")
    if shell.command is not None and not shell.command.strip():
        raise InvalidInput("payload.command", "is empty; a command for /bin/sh is needed")
    if shell.argv is not None and (not shell.argv or not shell.argv[0]):
        raise InvalidInput("payload.argv", "is empty; the program to run comes first")
    for field, text in (
        ("command", shell.command),
        ("cwd", shell.cwd),
        *(("argv", part) for part in shell.argv or ()),
    ):
        if text is not None and "\0" in text:
            raise InvalidInput(f"payload.{field}", "holds a NUL byte, which no command line can")
    _check_env(shell.env)
    if shell.nice is not None and not 0 <= shell.nice <= limits.NICE_MAX:
        raise InvalidInput("payload.nice", f"{shell.nice} is not allowed; it must be from 0 to {limits.NICE_MAX}")
    if shell.run_as is not None:
        _check_run_as(shell.run_as)
    if shell.limits is not None:
        _check_limits(shell.limits)


def _check_lengths(shell: ShellPayload) -> None:
    field = "command" if shell.argv is None else "argv"
    longest = max(len(text.encode("utf-8", "surrogatepass")) for text in shell.arguments())
    if longest > limits.ARGUMENT_BYTES:
        raise InvalidInput(
            f"payload.{field}",
            f"{longest} bytes in one argument; at most {limits.ARGUMENT_BYTES} are allowed, "
            "as no program can be given a longer one: pass it as stdin",
        )


def _refused_type(error: msgspec.ValidationError) -> InvalidInput:
    """Return what msgspec says, with the field it says it of."""
    found = _AT.fullmatch(str(error))
    if found is None:
        known = ", ".join(name for name in ShellPayload.__struct_fields__ if name not in {"command", "argv"})
        return InvalidInput("payload", f"{error}; allowed are command or argv, {known}")
    known = f"; allowed are {', '.join(LIMITS_MAX)}" if found["path"] == "limits" else ""
    return InvalidInput(f"payload.{found['path']}", f"{found['problem']}{known}")


def _check_run_as(run_as: str) -> None:
    accounts = _RUN_AS.fullmatch(run_as)
    if accounts is None:
        shown = run_as[: limits.NAME_CHARS]
        raise InvalidInput("payload.run_as", f"{shown!r} is not allowed; write user or user:group, by name or number")
    for account in accounts.groups():
        if account and account.isdigit() and int(account) > _ID_MAX:
            raise InvalidInput("payload.run_as", f"{account} is no id of a user or group; at most {_ID_MAX} is allowed")


def _check_limits(given: ResourceLimits) -> None:
    for name, most in LIMITS_MAX.items():
        value = getattr(given, name)
        if value is not None and not 1 <= value <= most:
            raise InvalidInput(f"payload.limits.{name}", f"{value} is not allowed; it must be from 1 to {most}")


def _check_env(env: dict[str, str]) -> None:
    size = 0
    for name, value in env.items():
        if not _ENV_NAME.fullmatch(name):
            raise InvalidInput("payload.env", f"{name!r} is not a name; allowed are letters, digits and _")
        if "\0" in value:
            raise InvalidInput("payload.env", f"{name} holds a NUL byte")
        size += len(name) + len(value.encode("utf-8", "surrogatepass")) + 2
    if size > limits.ENV_BYTES:
        raise InvalidInput("payload.env", f"{size} bytes; at most {limits.ENV_BYTES} are allowed")
