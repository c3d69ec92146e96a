"""The environment of a command: an allow-list of the worker's own, what the job brings, what we tell it.

Never the worker's whole environment: that may hold secrets. From the weakest to the strongest:

    PATH HOME LANG TZ            the worker's; PATH, HOME and LANG have defaults
    those in ORQESTRA_WORKER_ENV the worker's, if it has them
    TMPDIR                       the command's own temporary folder, unless the job's `env` has one
    the job's `env`
    ORQESTRA_*, PREVIOUS_OUTPUT  ours; those that name the folder and files in it are the supervisor's
"""

import os
import pwd
from collections.abc import Iterable, Mapping
from typing import Final

from orqestra.model.limits import PREVIOUS_OUTPUT_BYTES
from orqestra.v1.worker_pb2 import Assignment

PATH_DEFAULT: Final = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LANG_DEFAULT: Final = b"C.UTF-8"
PASSED_ON: Final = (b"PATH", b"HOME", b"LANG", b"TZ")


def base_environment(own: Mapping[bytes, bytes], passed_on: Iterable[str]) -> dict[bytes, bytes]:
    """Return what all commands get of the worker's environment `own`."""
    found = {b"PATH": PATH_DEFAULT, b"HOME": _home(), b"LANG": LANG_DEFAULT}
    for name in (*PASSED_ON, *map(os.fsencode, passed_on)):
        if value := own.get(name):
            found[name] = value
    return found


def job_environment(assignment: Assignment) -> dict[bytes, bytes]:
    """Return what we tell a command of its job; of its own folder the supervisor tells it."""
    told = {
        b"ORQESTRA_JOB_ID": b"%d" % assignment.attempt.job_id,
        b"ORQESTRA_ATTEMPT": b"%d" % assignment.attempt_number,
        b"ORQESTRA_FENCE": b"%d" % assignment.attempt.fence,
    }
    if assignment.run_id:
        told[b"ORQESTRA_RUN_ID"] = b"%d" % assignment.run_id
    if assignment.has_previous_output:
        told[b"PREVIOUS_OUTPUT"] = as_variable(assignment.previous_output)
    return told


def as_variable(output: bytes) -> bytes:
    """Return output as `$(...)` would: without NULs and trailing newlines; then cut to what is allowed."""
    return output.replace(b"\0", b"").rstrip(b"\n")[:PREVIOUS_OUTPUT_BYTES]


def _home() -> bytes:
    try:
        return os.fsencode(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:  # a container's user need not have an entry
        return b"/"
