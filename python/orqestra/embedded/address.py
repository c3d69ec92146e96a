"""Listen addresses for a server that is about to start: a free port that stays ours, or a clear no."""

import errno
import socket

from orqestra.model.errors import StartFailed
from orqestra.setting_kinds import Address


class Reservation:
    """An address that a server of ours can bind, now and at each restart. A port of 0 becomes a free one.

    The port is bound but not listened on. As long as it is held the kernel gives it to nobody who asks
    for a free one, while a server that names it may bind it too: both allow reuse, and gRPC and uvicorn
    do so by default.
    """

    def __init__(self, wanted: Address, setting: str) -> None:
        """Hold the address; raises StartFailed, naming `setting`, if another process listens there."""
        self._socket = _bind(wanted, setting)
        self.address = Address(host=wanted.host, port=self._socket.getsockname()[1])

    def release(self) -> None:
        """Let go of the port."""
        self._socket.close()


def _bind(wanted: Address, setting: str) -> socket.socket:
    try:
        family, kind, _, _, place = socket.getaddrinfo(
            wanted.listen_host, wanted.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise StartFailed(f"{setting}='{wanted}' has no host that this machine knows: {error}") from None
    bound = socket.socket(family, kind)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(place)
    except OSError as error:
        bound.close()
        reason = "another process listens there" if error.errno == errno.EADDRINUSE else str(error)
        raise StartFailed(f"{setting}='{wanted}' can't be used: {reason}; name another") from None
    return bound
