"""The verdict on a fault: whether every promise held, and the story of each that did not.

| file | what it decides |
|---|---|
| `safety.py` | I1, I3, I4, I6, I9, I10: the row of each job, version by version |
| `executions.py` | I2, I5, I15 and the count of starts: clients and commands against Postgres |
| `flows.py` | I7, I8, I11: what must be in one transaction |
| `places.py` | I12, I13, I14: Redis, capacity, sessions |
| `liveness.py` | L1 to L8, as far as a cell passes bounds |

Each check is a function of the evidence alone. What the evidence does not hold is not decided: hints that
were not read, samples that were not taken.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from tests.chaos import executions, flows, places, safety
from tests.chaos.evidence import Allowance, Evidence
from tests.chaos.executions import Ledger, count_extra_starts, surplus
from tests.chaos.liveness import PROMISES, Bounds
from tests.chaos.timeline import Timeline, Violation

Check: TypeAlias = Callable[[Timeline, Allowance], Iterator[Violation]]
CHECKS: Final[tuple[Check, ...]] = (*safety.CHECKS, *executions.CHECKS, *flows.CHECKS, *places.CHECKS)


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Counts of what happened, and all that should not have."""

    acked: int
    """Submits and triggers that the client saw stored."""
    lost: int
    """Acknowledged, and without an end."""
    unexpected: int
    """Jobs and runs that nobody asked for."""
    duplicate: int
    """Starts beyond what the fault allows."""
    recovered: int
    """Calls of unknown end that turned out to be stored."""
    extra_starts: int
    """Executions that did not count, allowed or not: lost, handed back, or started twice."""
    violations: tuple[Violation, ...]

    @property
    def ok(self) -> bool:
        """Whether every promise held."""
        return not self.violations

    def __str__(self) -> str:
        return "\n".join(str(violation) for violation in self.violations) or "every promise held"


def check(evidence: Evidence, allowance: Allowance, bounds: Bounds | None = None) -> Findings:
    """Decide what the evidence says. To be called once everything has ended and come to rest."""
    timeline = Timeline(evidence)
    ledger = Ledger(timeline=timeline)
    violations = [violation for each in CHECKS for violation in each(timeline, allowance)]
    violations += _repairs(evidence, allowance)
    if bounds is not None:
        violations += [violation for promise in PROMISES for violation in promise(timeline, bounds)]
    return Findings(
        acked=len(ledger.acked),
        lost=len(ledger.lost),
        unexpected=len(ledger.unexpected_jobs) + len(ledger.unexpected_runs),
        duplicate=sum(count for count in surplus(timeline, allowance).values() if count > 0),
        recovered=len(ledger.recovered),
        extra_starts=count_extra_starts(timeline),
        violations=tuple(violations),
    )


def _repairs(evidence: Evidence, allowance: Allowance) -> Iterator[Violation]:
    if allowance.repairs is None:
        return
    for name, count in evidence.counters.items():
        if count and name not in allowance.repairs:
            text = f"counted {count} times, and nothing was broken"
            yield Violation(invariant="repairs", subject=name, text=text)
