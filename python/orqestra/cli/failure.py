"""The exit codes, and how an error is told: one line on stderr and, with --json, a document on stdout."""

from enum import IntEnum
from typing import Final

import click

from orqestra.model import errors


class ExitCode(IntEnum):
    """What the command line answers a shell. With --wait, once the job ran, its own code takes over."""

    DONE = 0
    FAILED = 1
    BAD_INPUT = 2
    NOT_FOUND = 3
    UNREACHABLE = 4
    INTERRUPTED = 130


# By the class or the nearest one above it; any other error is FAILED.
EXIT_CODES: Final[dict[type[errors.OrqestraError], ExitCode]] = {
    errors.InvalidInput: ExitCode.BAD_INPUT,
    errors.BadSettings: ExitCode.BAD_INPUT,
    errors.NotFound: ExitCode.NOT_FOUND,
    errors.Unavailable: ExitCode.UNREACHABLE,
}


def report(error: errors.OrqestraError, *, as_json: bool, is_client: bool = True) -> ExitCode:
    """Tell an error of ours; return the exit code.

    For a command that is no client, Postgres or Redis away is a plain failure: it is not the server
    that could not be reached.
    """
    field = error.field if isinstance(error, errors.InvalidInput) else None
    _tell(str(error), code=error.code, field=field, as_json=as_json)
    code = exit_code(error)
    return ExitCode.FAILED if code is ExitCode.UNREACHABLE and not is_client else code


def exit_code(error: errors.OrqestraError) -> ExitCode:
    """Return the exit code of an error."""
    return next((EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES), ExitCode.FAILED)


def report_usage(error: click.ClickException, *, as_json: bool) -> int:
    """Tell what is wrong with the command line itself; return the exit code."""
    if as_json:
        parameter = error.param.name if isinstance(error, click.BadParameter) and error.param else None
        _document(error.format_message(), code=errors.InvalidInput.code, field=parameter)
    error.show()
    return error.exit_code


def report_unexpected(error: Exception, *, as_json: bool) -> ExitCode:
    """Tell a bug or a fault of the system in one line, without the traceback."""
    message = f"unexpected {type(error).__name__}: {error} (ORQESTRA_DEBUG=1 shows where)"
    _tell(message, code=errors.OrqestraError.code, field=None, as_json=as_json)
    return ExitCode.FAILED


def warn(message: str) -> None:
    """Tell something on stderr that is no error by itself."""
    click.echo(message, err=True)


def _tell(message: str, *, code: str, field: str | None, as_json: bool) -> None:
    if as_json:
        _document(message, code=code, field=field)
    from orqestra.cli.terminal import plain

    click.echo(f"Error: {plain(message)}", err=True)


def _document(message: str, *, code: str, field: str | None) -> None:
    from orqestra.cli.documents import print_document

    print_document({"error": {"code": code, "message": message, "field": field}})
