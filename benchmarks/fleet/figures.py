"""What was found out about one number of streams, and how it reads."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from orqestra.bench.report import Latencies

KB: Final = 1000
DIGITS: Final = 4


@dataclass(frozen=True, kw_only=True)
class Cost:
    """CPU seconds that each of these took in so many seconds, and how many jobs were done meanwhile."""

    seconds: float
    jobs: int
    server_cpu_s: float
    postgres_cpu_s: float
    redis_cpu_s: float

    @property
    def server_share(self) -> float:
        """The part of a core that the server took."""
        return self.server_cpu_s / self.seconds


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One number of streams on a server that was started for it. `rss` is the server's memory."""

    streams: int
    slots: int
    connect_seconds: float
    rss_before_bytes: int
    rss_connected_bytes: int
    rss_after_load_bytes: int
    idle: Cost
    latencies: Latencies
    latency_cost: Cost
    load: Cost
    load_messages: int
    open_at_end: int
    claimed_again: int
    """Jobs that were taken back from a stream that ended, or did not accept them in time."""

    @property
    def bytes_per_stream(self) -> float:
        """What a stream that has nothing to do takes in the server."""
        return (self.rss_connected_bytes - self.rss_before_bytes) / self.streams

    @property
    def jobs_per_s(self) -> float:
        """Jobs with a committed end, a second, while as many as possible were submitted."""
        return self.load.jobs / self.load.seconds

    @property
    def server_us_per_job(self) -> float:
        """CPU of the server for each of them."""
        return self.load.server_cpu_s / self.load.jobs * 1e6

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it, with what follows from it."""
        derived = ("bytes_per_stream", "jobs_per_s", "server_us_per_job")
        document: dict[str, Any] = {**asdict(self), **{name: getattr(self, name) for name in derived}}
        document["idle"]["server_share"] = self.idle.server_share
        rounded: dict[str, Any] = _rounded(document)
        return rounded


def table(found: Sequence[Figures]) -> str:
    """Return figures side by side, as text."""
    rows = [
        ("streams", [f"{each.streams:,}" for each in found]),
        ("slots each", [f"{each.slots:,}" for each in found]),
        ("connected within", [f"{each.connect_seconds:.1f} s" for each in found]),
        ("server memory without any", [f"{each.rss_before_bytes / KB / KB:.1f} MB" for each in found]),
        ("a stream adds", [f"{each.bytes_per_stream / KB:.1f} kB" for each in found]),
        ("server memory after the load", [f"{each.rss_after_load_bytes / KB / KB:.1f} MB" for each in found]),
        ("idle server, of a core", [f"{each.idle.server_share:.1%}" for each in found]),
        ("idle Postgres, of a core", [f"{each.idle.postgres_cpu_s / each.idle.seconds:.1%}" for each in found]),
        ("submit to Assign, p50", [f"{each.latencies.p50:.1f} ms" for each in found]),
        ("submit to Assign, p99", [f"{each.latencies.p99:.1f} ms" for each in found]),
        ("submit to Assign, longest", [f"{each.latencies.max:.1f} ms" for each in found]),
        ("jobs a second", [f"{each.jobs_per_s:,.0f}" for each in found]),
        ("jobs in an Assign", [f"{each.load.jobs / each.load_messages:.1f}" for each in found]),
        ("server CPU a job", [f"{each.server_us_per_job:,.0f} µs" for each in found]),
        ("streams open at the end", [f"{each.open_at_end:,}" for each in found]),
        ("jobs claimed again", [f"{each.claimed_again:,}" for each in found]),
    ]
    wide = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{wide}}" + "".join(f"{cell:>14}" for cell in cells) for name, cells in rows)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
