"""What a scenario found out: figures, and whether they count."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from orqestra.model.lifecycle import State

MS: Final = 1000.0
# Shown and kept; more would be noise from one run to the next.
DIGITS: Final = 3
# What the limit may change during a run. Beyond, others took the CPUs, and the ratio says little.
STEADY_FACTOR: Final = 1.25


@dataclass(frozen=True, kw_only=True)
class Latencies:
    """Quantiles of a number of latencies, in ms."""

    p50: float
    p95: float
    p99: float
    p999: float
    max: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Self | None:
        """Return those of `seconds`, in any order; None if there are none."""
        if not seconds:
            return None
        ordered = sorted(seconds)
        return cls(
            p50=quantile(ordered, 0.5) * MS,
            p95=quantile(ordered, 0.95) * MS,
            p99=quantile(ordered, 0.99) * MS,
            p999=quantile(ordered, 0.999) * MS,
            max=ordered[-1] * MS,
        )


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What one process, or a group of processes of one name, took during the load.

    `rss_mb` is the peak of a single process. Those of a group share memory: it is the sum of their fair
    parts, as they were at the end. None where there is no such figure.
    """

    name: str
    cpu_s: float
    rss_mb: float | None


@dataclass(frozen=True, kw_only=True)
class Report:
    """One run of a scenario. `seconds` is from the first submit to the last committed end.

    `limits_per_s` are from right before and right after; `xargs_per_s` is what `xargs -P2` reaches.
    """

    scenario: str
    jobs: int
    seconds: float
    limits_per_s: tuple[float, float]
    xargs_per_s: float | None
    latencies: Latencies | None
    processes: Sequence[Usage]
    lost: int
    duplicated: int
    failed: int
    settings: Mapping[str, Any]
    machine: Mapping[str, Any]
    versions: Mapping[str, str]

    @property
    def is_good(self) -> bool:
        """Whether every job ran once and well; a speed without that is none."""
        return self.lost == self.duplicated == self.failed == 0

    @property
    def jobs_per_s(self) -> float:
        """Jobs whose end is committed, a second."""
        return (self.jobs - self.lost) / self.seconds

    @property
    def limit_per_s(self) -> float:
        """What the machine can do at best: the mean of before and after."""
        return sum(self.limits_per_s) / len(self.limits_per_s)

    @property
    def is_steady(self) -> bool:
        """Whether the machine was about as fast before the load as after it."""
        return max(self.limits_per_s) <= STEADY_FACTOR * min(self.limits_per_s)

    @property
    def ratio(self) -> float:
        """The part of the limit that was reached."""
        return self.jobs_per_s / self.limit_per_s

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "scenario": self.scenario,
            "jobs": self.jobs,
            "seconds": _rounded(self.seconds),
            "jobs_per_s": _rounded(self.jobs_per_s),
            "limit_per_s": _rounded(self.limit_per_s),
            "limits_per_s": [_rounded(each) for each in self.limits_per_s],
            "ratio": _rounded(self.ratio),
            "xargs_per_s": _rounded(self.xargs_per_s),
            "latency_ms": _latency_document(self.latencies),
            "processes": [
                {"name": each.name, "cpu_s": _rounded(each.cpu_s), "rss_mb": _rounded(each.rss_mb)}
                for each in self.processes
            ],
            "lost": self.lost,
            "duplicated": self.duplicated,
            State.FAILED.value: self.failed,
            "settings": dict(self.settings),
            "machine": dict(self.machine),
            "versions": dict(self.versions),
        }


def quantile(ordered: Sequence[float], part: float) -> float:
    """Return the smallest of the values, in ascending order, that at least `part` of them do not exceed."""
    return ordered[max(math.ceil(part * len(ordered)) - 1, 0)]


def _latency_document(latencies: Latencies | None) -> dict[str, float | None] | None:
    if latencies is None:
        return None
    return {name: _rounded(getattr(latencies, name)) for name in ("p50", "p95", "p99", "p999", "max")}


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, DIGITS)
