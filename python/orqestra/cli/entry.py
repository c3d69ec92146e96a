"""From the arguments to the exit code: the top group, and what becomes of an error."""

import os
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

import click

from orqestra import __version__
from orqestra.cli.commands import COMMANDS, LazyGroup, OutputClosed
from orqestra.cli.failure import ExitCode, report, report_unexpected, report_usage
from orqestra.cli.options import client_options
from orqestra.model.errors import OrqestraError

PROGRAM: Final = "orqestra"
# 128 + SIGPIPE: what a shell says of a program whose reader has gone away.
PIPE_EXIT_CODE: Final = 141
# gRPC reads them when it is imported. Its own log lines are not for the people here, and the hooks
# that it installs around fork would cost every child.
ENVIRONMENT: Final = {"GRPC_VERBOSITY": "NONE", "GRPC_ENABLE_FORK_SUPPORT": "0"}


@click.group(
    PROGRAM,
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failed, 2 bad input, 3 not found, 4 server unreachable. "
    "With --wait: the job's own exit code.",
)
@click.version_option(__version__, message="%(prog)s %(version)s")
@client_options
def orqestra() -> None:
    """Run commands on fleets of machines, durably."""


def main() -> NoReturn:
    """Run the program `orqestra` and exit."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line; return the exit code. No exception gets out, unless ORQESTRA_DEBUG=1."""
    as_json = _wants_json(arguments)
    try:
        result = orqestra.main(args=list(arguments), prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        return report_usage(error, as_json=as_json)
    except click.Abort:
        return ExitCode.INTERRUPTED
    except OrqestraError as error:
        return report(error, as_json=as_json, is_client=_is_client(arguments))
    except (BrokenPipeError, OutputClosed):
        # What is still buffered has nowhere to go; without this the interpreter complains at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_EXIT_CODE
    except Exception as error:  # the last line before the traceback, which is for us and not for users
        if os.environ.get("ORQESTRA_DEBUG") == "1":
            raise
        return report_unexpected(error, as_json=as_json)
    return result if isinstance(result, int) else ExitCode.DONE


def _wants_json(arguments: Sequence[str]) -> bool:
    """Tell whether --json is among the options; needed for errors that come before they are parsed."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in options


def _is_client(arguments: Sequence[str]) -> bool:
    """Tell whether the command that was called is one that talks to a server."""
    named = [COMMANDS[argument] for argument in arguments if argument in COMMANDS]
    return not named or named[0].is_client
