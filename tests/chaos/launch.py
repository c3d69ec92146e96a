"""Starts `orqestra` under the eyes of a test: `python -m tests.chaos.launch server ...`.

What a failpoint does, a clock that is wrong and a build that is broken on purpose come in here and
nowhere else: the product has neither a setting nor a variable for them.
"""

import importlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable

from orqestra import failpoint
from orqestra.cli import main as orqestra
from orqestra.worker import supervision
from tests.chaos.settings import BROKEN, CLOCK_OFFSET, CONTROL, NAME


class Strings:
    """The line to the test: it says at which points this process is to halt, and when it may go on."""

    def __init__(self, path: str, name: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._send(f"hello {name} {os.getpid()}")
        self._armed: dict[str, int] = {}
        self._go = threading.Event()
        threading.Thread(target=self._listen, name="strings", daemon=True).start()

    def reached(self, point: str) -> None:
        """Halt the whole process here if the test wants that, until it says go or ends the process."""
        left = self._armed.get(point)
        if left is None:
            return
        if left > 0:
            self._armed[point] = left - 1
            return
        del self._armed[point]
        self._go.clear()
        self._send(f"hit {point}")
        self._go.wait()

    def _listen(self) -> None:
        with self._socket.makefile("r") as lines:
            for line in lines:
                match line.split():
                    case ["arm", point, passes]:
                        self._armed[point] = int(passes)
                        self._send(f"armed {point}")
                    case ["disarm", point]:
                        self._armed.pop(point, None)
                        self._send(f"disarmed {point}")
                    case ["go"]:
                        self._go.set()
        # The test is gone: nobody would ever say go.
        self._armed.clear()
        self._go.set()

    def _send(self, line: str) -> None:
        self._socket.sendall(f"{line}\n".encode())


def main() -> None:
    """Set up what the environment asks for, then be `orqestra` with the arguments given."""
    offset_seconds = float(os.environ.get(CLOCK_OFFSET, "0"))
    if offset_seconds:
        _shift_clock(offset_seconds)
    if broken := os.environ.get(BROKEN):
        # It imports all of a server, for which no worker that is whole has to wait at its start.
        importlib.import_module("tests.chaos.broken").break_build(broken)
    if control := os.environ.get(CONTROL):
        failpoint.on_reach(Strings(control, os.environ[NAME]).reached)
        supervision.COMMAND = (sys.executable, "-P", "-m", "tests.chaos.supervise")
    sys.argv[0] = "orqestra"
    orqestra()


def _shift_clock(offset_seconds: float) -> None:
    """Let this process believe in another time of day; what measures spans goes on as it is."""
    true_time: Callable[[], float] = time.time
    true_time_ns: Callable[[], int] = time.time_ns
    time.time = lambda: true_time() + offset_seconds
    time.time_ns = lambda: true_time_ns() + int(offset_seconds * 1e9)


if __name__ == "__main__":
    main()
