"""As whom a command runs and what it may use: what its job asks for, within what the worker allows.

ORQESTRA_RUN_AS       backup, media:video        whom jobs may ask to be run as; nobody else
ORQESTRA_CEILINGS     timeout=3600, nice=5, memory_bytes=2147483648
                      no job gets more, and one that asks for nothing gets this
"""

import grp
import os
import pwd
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from orqestra.model.errors import InvalidInput
from orqestra.model.payload import LIMITS_MAX, ShellPayload

NICE: Final = "nice"
TIMEOUT: Final = "timeout"
# What a worker may put a ceiling on; of niceness a floor.
CEILINGS: Final = (TIMEOUT, NICE, *LIMITS_MAX)

Account: TypeAlias = tuple[int, int, list[int]]


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a worker allows. `ceilings` are by name; `timeout` is in seconds."""

    run_as: Collection[str] = ()
    ceilings: Mapping[str, int] = field(default_factory=dict)

    def timeout_ms(self, asked_ms: int) -> int:
        """Return how long a command may run; 0: for ever."""
        ceiling_ms = self.ceilings.get(TIMEOUT, 0) * 1000
        return min(asked_ms or ceiling_ms, ceiling_ms or asked_ms)

    def limits(self, payload: ShellPayload) -> dict[str, int]:
        """Return the limits of a command, by name."""
        asked = payload.limits
        if asked is None and payload.nice is None and not self.ceilings:
            return {}
        found = {name: getattr(asked, name) for name in LIMITS_MAX} if asked is not None else {}
        limits = {name: value for name, value in found.items() if value is not None}
        for name in LIMITS_MAX:
            if (ceiling := self.ceilings.get(name)) is not None:
                limits[name] = min(ceiling, limits.get(name, ceiling))
        nice = max(payload.nice or 0, self.ceilings.get(NICE, 0))
        return {**limits, NICE: nice} if nice else limits

    def account(self, payload: ShellPayload) -> Account | None:
        """Return whom a command runs as: uid, gid, further groups. None: as the worker does.

        Raises:
            InvalidInput: there is no such user or group here, or the worker does not allow it.
        """
        if payload.run_as is None:
            return None
        if payload.run_as not in self.run_as:
            allowed = ", ".join(self.run_as) or "none"
            raise InvalidInput("payload.run_as", f"{payload.run_as!r} is not among ORQESTRA_RUN_AS here: {allowed}")
        user, _, group = payload.run_as.partition(":")
        uid, own_gid, name = _user(user)
        gid = _group(group) if group else own_gid
        if gid is None:
            raise InvalidInput("payload.run_as", f"user {uid} has no entry here and so no group: write user:group")
        return uid, gid, [gid] if name is None else os.getgrouplist(name, gid)

    def home(self, payload: ShellPayload) -> dict[bytes, bytes]:
        """Return what the environment says of the user of a command, where that is not the worker's."""
        if payload.run_as is None:
            return {}
        uid, _, name = _user(payload.run_as.partition(":")[0])
        if name is None:
            return {b"HOME": b"/"}
        user = os.fsencode(name)
        return {b"HOME": os.fsencode(pwd.getpwuid(uid).pw_dir), b"USER": user, b"LOGNAME": user}


def _user(text: str) -> tuple[int, int | None, str | None]:
    """Return uid, own group and name; a number needs no entry."""
    try:
        entry = pwd.getpwuid(int(text)) if text.isdigit() else pwd.getpwnam(text)
    except KeyError:
        if text.isdigit():
            return int(text), None, None
        raise InvalidInput("payload.run_as", f"there is no user {text!r} on this worker") from None
    return entry.pw_uid, entry.pw_gid, entry.pw_name


def _group(text: str) -> int:
    if text.isdigit():
        return int(text)
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        raise InvalidInput("payload.run_as", f"there is no group {text!r} on this worker") from None
