"""What a scenario found out: figures, and whether they count."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
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
class Verdict:
    """`lost` did not end or are not there, `duplicated` were started too often, `failed` ended in another way."""

    lost: int = 0
    duplicated: int = 0
    failed: int = 0

    def __add__(self, other: Self) -> "Verdict":
        return Verdict(
            lost=self.lost + other.lost,
            duplicated=self.duplicated + other.duplicated,
            failed=self.failed + other.failed,
        )


# What a scenario found out besides.
Figure = float | Latencies | Mapping[str, float | Latencies | None] | None


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

    `limits_per_s` are from right before and right after, of what `limit_of` says; None where there was no
    Postgres to measure. `more` is what this scenario alone has: numbers, `Latencies`, or these by name.
    """

    scenario: str
    jobs: int
    seconds: float
    limits_per_s: tuple[float, float] | None
    limit_of: str
    latencies: Latencies | None
    processes: Sequence[Usage]
    verdict: Verdict
    settings: Mapping[str, Any]
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    more: Mapping[str, Figure] = field(default_factory=dict)

    @property
    def is_good(self) -> bool:
        """Whether every job ran once and well; a speed without that is none."""
        return self.verdict == Verdict()

    @property
    def jobs_per_s(self) -> float:
        """Jobs whose end is committed, a second."""
        return (self.jobs - self.verdict.lost) / self.seconds

    @property
    def limit_per_s(self) -> float | None:
        """What the machine can do at best: the mean of before and after."""
        return None if self.limits_per_s is None else sum(self.limits_per_s) / len(self.limits_per_s)

    @property
    def is_steady(self) -> bool:
        """Whether the machine was about as fast before the load as after it."""
        return self.limits_per_s is None or max(self.limits_per_s) <= STEADY_FACTOR * min(self.limits_per_s)

    @property
    def ratio(self) -> float | None:
        """The part of the limit that was reached."""
        return None if self.limit_per_s is None else self.jobs_per_s / self.limit_per_s

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "scenario": self.scenario,
            "jobs": self.jobs,
            "seconds": _rounded(self.seconds),
            "jobs_per_s": _rounded(self.jobs_per_s),
            "limit_per_s": _rounded(self.limit_per_s),
            "limits_per_s": None if self.limits_per_s is None else [_rounded(each) for each in self.limits_per_s],
            "ratio": _rounded(self.ratio),
            **{name: _figure_document(figure) for name, figure in self.more.items()},
            "latency_ms": _figure_document(self.latencies),
            "processes": [
                {"name": each.name, "cpu_s": _rounded(each.cpu_s), "rss_mb": _rounded(each.rss_mb)}
                for each in self.processes
            ],
            "lost": self.verdict.lost,
            "duplicated": self.verdict.duplicated,
            State.FAILED.value: self.verdict.failed,
            "settings": dict(self.settings),
            "machine": dict(self.machine),
            "versions": dict(self.versions),
        }


def quantile(ordered: Sequence[float], part: float) -> float:
    """Return the smallest of the values, in ascending order, that at least `part` of them do not exceed."""
    return ordered[max(math.ceil(part * len(ordered)) - 1, 0)]


def _figure_document(figure: Figure) -> Any:
    match figure:
        case Latencies():
            return {name: _rounded(each) for name, each in asdict(figure).items()}
        case Mapping():
            return {name: _figure_document(each) for name, each in figure.items()}
        case _:
            return _rounded(figure)


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, DIGITS)
