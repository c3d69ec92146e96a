"""The payload of a `shell` job: what is run, with which environment, where and with which input.

    {"command": "make all"}                     run by /bin/sh -c
    {"argv": ["/usr/bin/make", "all"]}          run without a shell
    ... "env": {"NAME": "value"}, "cwd": "/directory", "stdin": "text"

The server checks it at submit, the worker reads it again before it runs the command.
"""

import re
from typing import Final

import msgspec

from orqestra.model import limits
from orqestra.model.errors import InvalidInput

SHELL: Final = "/bin/sh"
_ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class ShellPayload(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A command to run. Exactly one of `command` and `argv` is given."""

    command: str | None = None
    argv: tuple[str, ...] | None = None
    env: dict[str, str] = {}
    cwd: str | None = None
    stdin: str | None = None

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
        raise InvalidInput("payload", f"{error}; allowed are command or argv, env, cwd, stdin") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput("payload", f"not JSON: {error}") from error
    _check(shell)
    return shell


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
