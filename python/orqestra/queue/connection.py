"""The client of Redis: how it connects, and which of its errors mean that it is away."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool, Connection, Redis, UnixDomainSocketConnection
from redis.exceptions import RedisError

from orqestra.model.errors import HintsUnavailable
from orqestra.setting_kinds import SocketPath
from orqestra.settings import Settings

# Two of them listen all the time.
CONNECTIONS: Final = 9
# A script takes a few milliseconds; waiting longer than this costs more than dispatch without Redis.
ANSWER_TIMEOUT_SECONDS: Final = 0.5
CONNECT_TIMEOUT_SECONDS: Final = 0.5


def connect(settings: Settings) -> Redis:
    """Return a client; the first command connects."""
    common: dict[str, Any] = {
        "db": settings.redis_db,
        "password": settings.redis_password or None,
        "socket_timeout": ANSWER_TIMEOUT_SECONDS,
        "client_name": "orqestra",
        "max_connections": CONNECTIONS,
        "timeout": CONNECT_TIMEOUT_SECONDS,
        "retry": None,
    }
    address = settings.redis_address
    if isinstance(address, SocketPath):
        pool = BlockingConnectionPool(connection_class=UnixDomainSocketConnection, path=str(address.path), **common)
    else:
        pool = BlockingConnectionPool(
            connection_class=Connection,
            host=address.dial_host,
            port=address.port,
            socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
            socket_keepalive=True,
            **common,
        )
    return Redis.from_pool(pool)


@asynccontextmanager
async def away_as_error() -> AsyncIterator[None]:
    """Turn every failure of Redis into HintsUnavailable: none of them may be more than a delay."""
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        raise HintsUnavailable(f"Redis does not serve: {error}") from error
