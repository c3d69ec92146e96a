"""When memory is short: the kernel ends commands before those that look after them.

A command is made to go first by the supervisor that starts it, which also spares itself; here is the daemon's part.
"""

from contextlib import suppress
from pathlib import Path
from typing import Final

SCORE: Final = Path("/proc/self/oom_score_adj")
# Half of all memory is not counted against this process. The supervisor takes the same for itself.
SPARED: Final = "-500"


def outlast_commands() -> None:
    """Have the kernel end others first, if root runs this and nobody has said something else."""
    with suppress(OSError):
        if int(SCORE.read_text()) == 0:
            SCORE.write_text(SPARED)
