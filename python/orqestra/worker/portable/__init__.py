"""Commands without a supervisor, for development on systems other than Linux: run by the daemon itself.

From outside it is what `orqestra._dispatch` has, with less behind it: commands and their results end with
the daemon, and what has left the group of a command is nobody's. `docs/executor.md` has the differences.

    values       what is to be run, and what is told
    launch       from the command to its process
    capture      what is kept of its output
    execution    one command, from its start to its end
    commands     all of them, on the event loop of a thread
    supervisor   the daemon's end of that
"""

from orqestra.worker.portable.supervisor import Supervision, Supervisor
from orqestra.worker.portable.values import Command, Exit, Gone, Live, Strays, Stuck

__all__ = ["Command", "Exit", "Gone", "Live", "Strays", "Stuck", "Supervision", "Supervisor"]
