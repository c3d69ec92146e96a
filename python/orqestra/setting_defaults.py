"""Defaults of settings that depend on the machine or on other settings: each is found from the environment."""

import os
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from orqestra.model.limits import SLOT_DESCRIPTORS, SLOTS_MAX, WORKER_DESCRIPTORS

GRPC: Final = "127.0.0.1:50051"
SLOTS_PER_CPU: Final = 4
WORKFLOWS: Final = "workflows"
EXAMPLES: Final = Path(__file__).parent / "workflows"


def servers(environ: Mapping[str, str]) -> str:
    """Return where a single server listens."""
    return environ.get("GRPC_ADDR") or GRPC


def slots(_environ: Mapping[str, str]) -> str:
    """Return four times the CPUs that this process may use, as far as its descriptors last for so many."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    by_descriptors = SLOTS_MAX if most == resource.RLIM_INFINITY else (most - WORKER_DESCRIPTORS) // SLOT_DESCRIPTORS
    return str(max(1, min(SLOTS_PER_CPU * _cpus(), by_descriptors, SLOTS_MAX)))


def state_dir(environ: Mapping[str, str]) -> str:
    """Return the XDG folder for state. A temporary one would lose the worker's identity at a reboot."""
    base = environ.get("XDG_STATE_HOME", "")
    return os.path.join(base if base.startswith("/") else "~/.local/state", "orqestra")


def workflows_dir(_environ: Mapping[str, str]) -> str:
    """Return the folder `workflows` beside us, else the one that comes with the package."""
    return WORKFLOWS if os.path.isdir(WORKFLOWS) else str(EXAMPLES)


def _cpus() -> int:
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
