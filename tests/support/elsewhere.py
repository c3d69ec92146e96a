"""Makes this interpreter look like one on macOS to what is imported from now on: `pytest -p tests.support.elsewhere`.

What other libraries need to know of the system they know by then.
"""

import asyncio
import os
import resource
import select
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from types import ModuleType
from typing import Final

import grpc.aio
import hypothesis
import prometheus_client
import psutil
import uvloop

import orqestra._dispatch as dispatch

KNOWING: Final = (asyncio, grpc.aio, hypothesis, prometheus_client, psutil, socket, subprocess, tempfile, uuid, uvloop)
# What macOS does not have, of all that is used on Linux; `os.pidfd_open` stays: tests look at processes with it.
MISSING: Final[dict[ModuleType, tuple[str, ...]]] = {
    os: ("memfd_create", "pipe2", "sched_getaffinity", "setresuid", "waitid"),
    resource: ("prlimit",),
    select: ("epoll",),
    time: ("CLOCK_BOOTTIME",),
    dispatch: ("Command", "Exit", "Gone", "Live", "Strays", "Stuck", "Supervisor", "supervise"),
}

assert not any(name.startswith("orqestra.worker") for name in sys.modules)
for module, names in MISSING.items():
    for name in names:
        delattr(module, name)
sys.platform = "darwin"
