"""What the server tells Prometheus. docs/metrics.md says what each of it means."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
# From what nobody notices to what costs a worker its lease.
LAG_BUCKETS_SECONDS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


@dataclass(frozen=True, kw_only=True)
class Readings:
    """What is read off the engine at each scrape."""

    repairs: Mapping[str, int]
    service_errors: Mapping[str, int]
    sessions: int
    redis_up: bool
    deleted_rows: Mapping[str, int]


class Metrics:
    """The registry of one server; nothing in it is shared with another of the same process."""

    def __init__(self, read: Callable[[], Readings]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Engine(read))
        self._lag = Histogram(
            "orqestra_loop_lag_seconds",
            "By how much the event loop was late, measured twice a second.",
            buckets=LAG_BUCKETS_SECONDS,
            registry=self._registry,
        )

    def note_lag(self, seconds: float) -> None:
        """Note by how much the loop was late."""
        self._lag.observe(max(0.0, seconds))

    def text(self) -> bytes:
        """Return everything in the text format of Prometheus."""
        return generate_latest(self._registry)


class _Engine(Collector):
    def __init__(self, read: Callable[[], Readings]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        """Read once, so that all of a scrape is of one moment."""
        readings = self._read()
        yield _counter("orqestra_repairs", "How often a healing path had to act.", "repair", readings.repairs)
        errors = readings.service_errors
        yield _counter("orqestra_service_errors", "Steps of a background loop that raised.", "service", errors)
        deleted = readings.deleted_rows
        yield _counter("orqestra_deleted_rows", "Rows of old jobs and runs that were deleted.", "table", deleted)
        yield GaugeMetricFamily("orqestra_sessions", "Worker streams that are open here.", readings.sessions)
        yield GaugeMetricFamily("orqestra_redis_up", "1 while Redis serves.", int(readings.redis_up))


def _counter(name: str, what: str, label: str, values: Mapping[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, what, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family
