"""Celery on Redis: prefork, as its command starts it (see peer.toml)."""

import os
import time

from celery import Celery
from counter import count
from producer import order, tell

app = Celery("program", broker=f"redis+socket://{os.environ['REDIS_SOCKET']}")
app.conf.update(task_ignore_result=True, worker_send_task_events=False, broker_connection_retry_on_startup=True)


@app.task(name="noop")
def noop(payload):
    """Count."""
    count()


def submit():
    jobs, payload = order()
    with app.producer_pool.acquire(block=True) as producer:
        producer.connection.ensure_connection()
        began_at = time.monotonic()
        for _ in range(jobs):
            noop.apply_async((payload,), producer=producer)
    tell(began_at)


if __name__ == "__main__":
    submit()
