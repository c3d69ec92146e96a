"""What commands did, told by themselves: each appends lines to one file, whichever worker runs it.

The file is opened with O_APPEND and a line is one write, so that lines stay whole and none is lost when
the shell, its worker or the server is killed.
"""

import shlex
from collections import Counter
from pathlib import Path

from tests.support.waiting import until


class Journal:
    """Counts of starts and ends by job id, and the commands that write them."""

    def __init__(self, path: Path) -> None:
        path.touch()
        self._path = path

    def command(self, work: str = ":") -> str:
        """Return a command for /bin/sh that notes its start, does `work` and notes its end."""
        return f"{self._note('start')}; {work}; {self._note('end')}"

    def starts(self) -> Counter[int]:
        """Return how often each job was started."""
        return self._count("start")

    def ends(self) -> Counter[int]:
        """Return how often each job came to the end of its command."""
        return self._count("end")

    async def started(self, count: int) -> None:
        """Return once there were so many starts in all."""
        await until(lambda: self.starts().total() >= count)

    def _note(self, word: str) -> str:
        return f'echo "{word} $ORQESTRA_JOB_ID" >> {shlex.quote(str(self._path))}'

    def _count(self, word: str) -> Counter[int]:
        lines = (line.split() for line in self._path.read_text().splitlines())
        return Counter(int(job_id) for what, job_id in lines if what == word)
