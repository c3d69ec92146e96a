"""Scenario `mixed`: jobs as they come in life, of all priorities, for labels, some of which fail and are retried.

Of a hundred jobs 85 do nothing, ten run a command that ends well, four one that fails at first, and one
fails for good after a retry. A third asks for one label and a third for another; of our workers every other
one has this, and the rest that. The limit is made of the two raw ones in the same proportion: the cycle for
each attempt and, beside it, the spawn for each command.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from orqestra.bench import limit, load
from orqestra.bench.audit import COMPLETES, Fate
from orqestra.bench.measure import beside_limit
from orqestra.bench.progress import Progress
from orqestra.bench.report import Latencies, Report
from orqestra.bench.stage import Finding, Stage, staged
from orqestra.bench.system import System
from orqestra.bench.wire import entry
from orqestra.bench.workers import Crew
from orqestra.client import Jitter, JobSpec, JobType, RetryPolicy, label_list, shell_payload
from orqestra.model import limits
from orqestra.model.lifecycle import State

NAME: Final = "mixed"
JOBS: Final = 10_000
# One for each worker.
LABELS: Final = ({"disk": "fast"}, {"disk": "large"})
# The mix is the same in every run.
SEED: Final = 1
SHELL: Final = ("sh", "-c", "true")
LIMIT_OF: Final = "jobs/s by the raw cycle and bare threads"
RETRIES: Final = RetryPolicy(max_retries=1, base_ms=10, jitter=Jitter.NONE)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of job: how many of a hundred there are, what it changes in a job, and how it is to end."""

    share: int
    change: Callable[[JobSpec], JobSpec]
    commands: int = 0
    fate: Fate = COMPLETES


def _command(text: str) -> Callable[[JobSpec], JobSpec]:
    return lambda spec: replace(spec, type=JobType.SHELL, payload=shell_payload(text), retries=RETRIES)


KINDS: Final = (
    Kind(share=85, change=lambda spec: spec),
    Kind(share=10, commands=1, change=_command("true")),
    Kind(share=4, commands=2, change=_command('test "$ORQESTRA_ATTEMPT" -gt 1'), fate=Fate(starts=2)),
    Kind(share=1, commands=2, change=_command("exit 3"), fate=Fate(state=State.FAILED, starts=2)),
)


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """The scenario with its choices."""

    progress: Progress
    crew: Crew
    jobs: int = JOBS

    async def __call__(self, system: System) -> Report:
        """Measure the limits, run the mix, measure the limits again, then look at every job."""
        chance = random.Random(SEED)  # noqa: S311  which job is which is no secret
        kinds = chance.choices(KINDS, [kind.share for kind in KINDS], k=self.jobs)
        fates: dict[int, Fate] = {}
        async with staged(system, self.progress, replace(self.crew, labels=LABELS)) as stage:
            entries = [entry(kind.change(_any_job(stage.spec, chance))) for kind in kinds]

            async def limit_per_s() -> float | None:
                return await _limit_per_s(stage, kinds)

            async def run() -> load.Wait:
                began_at = time.monotonic()
                ids = await load.submit_each(system.wire, entries)
                fates.update((job_id, kind.fate) for job_id, kind in zip(ids, kinds, strict=True))
                heard_at = await load.wait(system.client, sorted(ids), self.progress)
                return load.Wait(ids=sorted(ids), began_at=began_at, heard_at=heard_at)

            measured = await beside_limit(limit_per_s, stage.roots, run)
            await stage.fleet.stop()
            [outcome] = await stage.look([measured.result], fates)
        finding = Finding(
            jobs=self.jobs,
            seconds=outcome.seconds,
            latencies=Latencies.of(outcome.latencies),
            verdict=outcome.verdict,
            more={
                "attempts": sum(fate.starts for fate in fates.values()),
                "commands": sum(each.commands for each in kinds),
            },
            settings={"callers": 1, "limit_threads": limit.LIMIT_THREADS},
        )
        return replace(stage.report(NAME, measured, finding), limit_of=LIMIT_OF)


def _any_job(spec: JobSpec, chance: random.Random) -> JobSpec:
    """Return a job of any priority, for any label or none."""
    requires = chance.choice(((), *map(label_list, LABELS)))
    return replace(spec, priority=chance.randint(limits.PRIORITY_MIN, limits.PRIORITY_MAX), requires=requires)


async def _limit_per_s(stage: Stage, kinds: Sequence[Kind]) -> float | None:
    """Return how many jobs a second both raw limits together allow for this mix, on the same CPUs."""
    cycles_per_s = await stage.cycles_per_s()
    if cycles_per_s is None:
        return None
    return both_per_s(kinds, cycles_per_s, await limit.commands_per_s(SHELL, stage.system.limits.seconds))


def both_per_s(kinds: Sequence[Kind], cycles_per_s: float, spawns_per_s: float) -> float:
    """Return how many jobs a second that is: each takes a cycle for every attempt and a spawn for every command."""
    attempts, commands = sum(kind.fate.starts for kind in kinds), sum(kind.commands for kind in kinds)
    return len(kinds) / (attempts / cycles_per_s + commands / spawns_per_s)
