"""What runs the commands of a worker here: a supervisor on Linux, else the fallback for development.

Whatever the rest of the worker uses of it, it has from here.
"""

import sys
from typing import Final

if sys.platform == "linux":
    from orqestra._dispatch import Command, Exit, Gone, Live, Strays, Stuck, Supervisor
    from orqestra.worker.supervision import Supervision
else:
    from orqestra.worker.portable import Command, Exit, Gone, Live, Strays, Stuck, Supervision, Supervisor

# Whether the end of a command survives that of the daemon.
KEEPS_ENDS: Final = sys.platform == "linux"

__all__ = ["KEEPS_ENDS", "Command", "Exit", "Gone", "Live", "Strays", "Stuck", "Supervision", "Supervisor"]
