"""Is the supervisor of a worker under the eyes of a test: `launch` has it started instead of the usual program."""

import os
import sys

from orqestra._dispatch import supervise
from tests.chaos.launch import Strings
from tests.chaos.settings import CONTROL, NAME, SUPERVISOR


def main(directory: str, daemon: str, version: str, incarnation: str, orphan_ms: str) -> None:
    """Halt where the test wants that, else be a supervisor like any other."""
    strings = Strings(os.environ[CONTROL], os.environ[NAME] + SUPERVISOR)
    supervise(
        directory,
        daemon=int(daemon),
        version=version,
        incarnation=incarnation,
        orphan_ms=int(orphan_ms),
        reached=strings.reached,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
