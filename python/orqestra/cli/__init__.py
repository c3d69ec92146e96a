"""The command line: a client of the server, and the commands that start servers and workers.

Start with `entry` (from the arguments to the exit code) and `commands` (the list of commands; each is
loaded when it is used, which keeps `orqestra --help` quick). A command is one small file of the same
shape: options, one call of the client through `session`, and what is printed through `terminal` (for
people) or `documents` (for programs).
"""

from orqestra.cli.entry import main

__all__ = ["main"]
