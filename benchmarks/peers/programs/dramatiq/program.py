"""Dramatiq on Redis: two processes of threads, as its command starts it (see peer.toml)."""

import os
import time

import dramatiq
from counter import count
from dramatiq.brokers.redis import RedisBroker
from producer import order, tell

broker = RedisBroker(url=f"unix://{os.environ['REDIS_SOCKET']}")
dramatiq.set_broker(broker)


@dramatiq.actor
def noop(payload):
    """Count."""
    count()


def submit():
    jobs, payload = order()
    broker.client.ping()
    began_at = time.monotonic()
    for _ in range(jobs):
        noop.send(payload)
    tell(began_at)


if __name__ == "__main__":
    submit()
