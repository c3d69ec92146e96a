"""The descriptors of this process: a server takes as many as it may have, and says so when that is not enough."""

import resource

from orqestra.model.errors import StartFailed
from orqestra.model.limits import SERVER_DESCRIPTORS


def take_all(connections: int) -> None:
    """Raise the soft limit of this process to its hard one: each worker and each client takes one or two.

    `connections`: how many it has to Postgres. Call it before anything else is opened: what is told below the
    limit is a message, and what is not is whatever the first library without one does.

    Raises:
        StartFailed: even so it may not have what a server without any worker needs.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = SERVER_DESCRIPTORS + connections
    if most != resource.RLIM_INFINITY and most < needed:
        raise StartFailed(
            f"a server needs at least {needed} descriptors and the hard limit is {most}: raise it (ulimit -Hn)"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
