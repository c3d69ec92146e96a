"""Where a scenario ran, and what had a part in its speed; nothing that tells of the machine's owner."""

import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import orqestra

CPU_INFO: Final = Path("/proc/cpuinfo")
CPU_NAME: Final = re.compile(r"^model name\s*:\s*(.+)$", re.MULTILINE)
PACKAGES: Final = ("asyncpg", "grpcio", "hiredis", "redis", "uvloop")
VERSION: Final = re.compile(r"\d+(\.\d+)+")
ANSWER_SECONDS: Final = 5.0


def machine() -> dict[str, Any]:
    """Return the system and the CPUs that we may use."""
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "cpu": _cpu_name(),
        "cpus": len(os.sched_getaffinity(0)),
    }


def versions() -> dict[str, str]:
    """Return the versions of ourselves and of the libraries on the hot path."""
    return {
        "orqestra": orqestra.__version__,
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


def version_of(program: Path) -> str:
    """Return the version in what a program says of itself: `Redis server v=6.2.5 ...`; empty if none."""
    told = subprocess.run(  # noqa: S603 - no shell; one of the programs that we start anyway
        [str(program), "--version"], capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False
    ).stdout
    found = VERSION.search(told)
    return found[0] if found else ""


def _cpu_name() -> str | None:
    """Return what the kernel calls the CPU; None where it does not say."""
    found = CPU_NAME.search(CPU_INFO.read_text()) if CPU_INFO.exists() else None
    return found[1] if found else None
