"""What a case found: the rounds in their order, and whether the burden cost more than it may."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

# More would be noise from one run to the next.
DIGITS = 3


@dataclass(frozen=True, kw_only=True)
class Round:
    """One load: how many jobs, how many a second, and whether the system bore the burden."""

    burdened: bool
    jobs: int
    jobs_per_s: float
    cpu_us: Mapping[str, float]
    """Processor time for each job, by process: it varies less than the rate does where others use the machine too."""
    wal_bytes: float
    """What Postgres logged for each job: it varies hardly at all, and tells of pages that are touched for one row."""

    def document(self) -> dict[str, Any]:
        return {
            "burdened": self.burdened,
            "jobs": self.jobs,
            "jobs_per_s": round(self.jobs_per_s, DIGITS),
            "cpu_us": {name: round(each, 1) for name, each in self.cpu_us.items()},
            "wal_bytes": round(self.wal_bytes),
        }


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The rounds of one case. `at_least` is what the burdened rate has to be of the other one."""

    case: str
    rounds: Sequence[Round]
    at_least: float
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def base_per_s(self) -> float:
        """The median rate without the burden."""
        return median(each.jobs_per_s for each in self.rounds if not each.burdened)

    @property
    def burdened_per_s(self) -> float:
        """The median rate with it."""
        return median(each.jobs_per_s for each in self.rounds if each.burdened)

    def cpu_us(self, *, burdened: bool) -> dict[str, float]:
        """The median processor time for each job, by process."""
        found = [each.cpu_us for each in self.rounds if each.burdened is burdened]
        return {name: round(median(each[name] for each in found), 1) for name in found[0]}

    def wal_bytes(self, *, burdened: bool) -> int:
        """The median of what Postgres logged for each job."""
        return round(median(each.wal_bytes for each in self.rounds if each.burdened is burdened))

    @property
    def ratio(self) -> float:
        """The second as a part of the first."""
        return self.burdened_per_s / self.base_per_s

    @property
    def holds(self) -> bool:
        """Whether it is flat."""
        return self.ratio >= self.at_least

    def line(self) -> str:
        """Return it for people."""
        verdict = "holds" if self.holds else "DOES NOT HOLD"
        return (
            f"{self.case}: {self.burdened_per_s:,.0f} of {self.base_per_s:,.0f} jobs/s, "
            f"ratio {self.ratio:.3f}, at least {self.at_least}: {verdict}; "
            f"CPU us/job {self.cpu_us(burdened=True)}, without {self.cpu_us(burdened=False)}; "
            f"WAL bytes/job {self.wal_bytes(burdened=True)}, without {self.wal_bytes(burdened=False)}"
        )

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "case": self.case,
            "base_per_s": round(self.base_per_s, DIGITS),
            "burdened_per_s": round(self.burdened_per_s, DIGITS),
            "ratio": round(self.ratio, DIGITS),
            "at_least": self.at_least,
            "holds": self.holds,
            "base_cpu_us": self.cpu_us(burdened=False),
            "burdened_cpu_us": self.cpu_us(burdened=True),
            "base_wal_bytes": self.wal_bytes(burdened=False),
            "burdened_wal_bytes": self.wal_bytes(burdened=True),
            "rounds": [each.document() for each in self.rounds],
            "about": dict(self.about),
        }
