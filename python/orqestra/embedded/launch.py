"""The few lines between fork and exec of a child: run as a script, by path, with the standard library only.

    launch.py PARENT_PID SIGNAL USER_ID:GROUP_ID|- PROGRAM [ARGUMENT ...]

It asks the kernel to send SIGNAL when the parent ends (even by SIGKILL), gives up root for
USER_ID:GROUP_ID where one is named, and becomes PROGRAM. A script and not a `preexec_fn`: that would run
Python between fork and exec of a process with threads, and make every start a slow full fork.
"""

import ctypes
import os
import sys
from typing import Final

# From linux/prctl.h and linux/capability.h.
PR_SET_PDEATHSIG: Final = 1
PR_SET_KEEPCAPS: Final = 8
PR_SET_SECUREBITS: Final = 28
SECBIT_NO_SETUID_FIXUP: Final = 4
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_RAISE: Final = 2
CAPABILITY_VERSION_3: Final = 0x20080522
CAP_DAC_OVERRIDE: Final = 1
CAP_DAC_READ_SEARCH: Final = 2
CAP_SETPCAP: Final = 8

_libc = ctypes.CDLL(None, use_errno=True)


def main(arguments: list[str]) -> None:
    """Become the program that `arguments` name; returns only by an exception."""
    parent, death_signal, account, program, *rest = arguments
    if account != "-":
        user, group = (int(part) for part in account.split(":"))
        _give_up_root(user, group, program)
    # After the change of user, which would clear it. The parent may be gone already: then so are we.
    _libc.prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit(1)
    os.execv(program, [program, *rest])  # noqa: S606 - becoming another program is the purpose


def _give_up_root(user: int, group: int, program: str) -> None:
    """Become `user`; keep one capability of root, reading, only where the files are out of its reach."""
    _libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    # A home directory is closed to others: without this a project of root's could not have a database.
    if not (os.access(program, os.R_OK | os.X_OK) and os.access(os.getcwd(), os.X_OK)):
        any(_keep(capability) for capability in (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE))


def _keep(capability: int) -> bool:
    """Carry one capability through the exec; False if we do not have it (containers drop some)."""
    # access(2), by which initdb looks for its programs, only so counts capabilities of others than root.
    if _set_capabilities(capability, CAP_SETPCAP):
        _libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
    if not _set_capabilities(capability):
        return False
    return bool(_libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0) == 0)


def _set_capabilities(*capabilities: int) -> bool:
    """Have these and no others; False if we can't."""
    mask = sum(1 << capability for capability in capabilities)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    # effective, permitted, inheritable: the low words, then the high ones
    sets = (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)
    return bool(_libc.capset(header, sets) == 0)


if __name__ == "__main__":
    main(sys.argv[1:])
