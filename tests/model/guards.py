"""What the SQL and the code around it check before they write: each guard with the name of what it stands for.

States and decisions are not restated: they are those of `model.lifecycle`, `model.decision` and `model.workflow`.
"""

from dataclasses import dataclass
from functools import cache
from typing import Final

from orqestra.model.decision import Budget, Ending, decide
from orqestra.model.lifecycle import TERMINAL, Event, RunState, State, sources, step
from orqestra.model.payload import ShellPayload
from orqestra.model.report import Verdict
from orqestra.model.workflow import Step, define, is_complete, next_steps
from tests.model.flaws import Flaw
from tests.model.words import Attempt, Closed, Held, Job, Phase, Place, Run, Session

CLAIMABLE: Final = frozenset(sources(Event.CLAIMED))
RETRYABLE: Final = frozenset(sources(Event.RETRIED))
ENDINGS: Final = {
    Phase.SUCCEEDED: Ending.SUCCEEDED,
    Phase.FAILED: Ending.FAILED,
    Phase.RETURNED: Ending.RETURNED,
}
STEPS: Final = define("two", [Step(key=key, shell=ShellPayload(command=key)) for key in ("first", "second")])
KEYS: Final = tuple(each.key for each in STEPS.steps)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """Which protocol, and how much may happen: the bounds of the search.

    `steps` is 1 for a plain job, 2 for a run of two steps, one after the other. `can_fail`: commands may fail.
    Unless `is_deep`, a claim that has lost the race for a row is over at once, a worker goes from one server to
    the other, and it is always the same that sweeps: together that makes the search eight times smaller.
    """

    flaw: Flaw | None = None
    steps: int = 1
    max_retries: int = 0
    faults: int = 1
    cancels: int = 1
    retries: int = 1
    can_fail: bool = True
    is_deep: bool = False

    def is_(self, flaw: Flaw) -> bool:
        """Return whether the protocol has this mistake."""
        return self.flaw is flaw


def may_claim(job: Job, rules: Rules) -> bool:
    """`claim_jobs`: waiting, due and not cancelled; that its session is open was read before."""
    if rules.is_(Flaw.NO_GUARD):
        return True
    return job.state in CLAIMABLE and (not job.cancel or rules.is_(Flaw.CLAIM_IGNORES_CANCEL))


def next_attempt(job: Job, number: int, rules: Rules) -> Attempt:
    """`claim_jobs`: fence + 1, and a token that no other claim has."""
    claim = job.last.claim + 1
    if rules.is_(Flaw.ATTEMPT_AS_FENCE):
        return Attempt(number, claim, job.attempt + 1, 0)
    return Attempt(number, claim, job.last.fence + 1, claim)


def is_current(job: Job, attempt: Attempt, place: Place, rules: Rules) -> bool:
    """`settle_completed`, and `_is_current` after `lock_jobs`."""
    if job.state is not State.RUNNING:
        return False
    return rules.is_(Flaw.NO_FENCE) or (_is_same(job, attempt, rules) and job.place == place)


def is_orphan(job: Job, attempt: Attempt, place: Place, rules: Rules) -> bool:
    """`_is_current` after `lock_free_jobs`: nothing has happened to what `find_orphans` read."""
    if job.state is not State.RUNNING or not _is_same(job, attempt, rules):
        return False
    return job.place == place or rules.is_(Flaw.SWEEP_IGNORES_SESSION)


def verdict(job: Job, attempt: Attempt, place: Place, rules: Rules) -> Verdict | None:
    """`_verdict`, but that `attempts` would name some of the duplicates stale: the worker does the same for both."""
    if is_current(job, attempt, place, rules):
        return Verdict.ACCEPTED
    if not _is_same(job, attempt, rules):
        return Verdict.STALE
    return None if job.state is State.RUNNING else Verdict.DUPLICATE


def resumes(job: Job, held: Held, worker: int, rules: Rules) -> bool:
    """`resume_jobs`: it runs, as the very attempt that is held, on an older session of this worker."""
    if rules.is_(Flaw.RESUME_IGNORES_FENCE):
        return job.state is State.RUNNING
    return job.state is State.RUNNING and _is_same(job, held.attempt, rules) and job.place.worker == worker


def is_swept(session: Session, rules: Rules) -> bool:
    """`find_orphans`: its session is closed."""
    if rules.is_(Flaw.SWEEP_BEFORE_CLOSE):
        return session.closed is not Closed.OPEN or not session.lease
    return session.closed is not Closed.OPEN


def may_close(session: Session, rules: Rules) -> bool:
    """`close_lapsed`: open, and its lease is over."""
    return session.closed is Closed.OPEN and (not session.lease or rules.is_(Flaw.CLOSE_WITHOUT_GUARD))


def may_renew(session: Session) -> bool:
    """`renew_sessions`: not closed. That its lease is over already is no reason to refuse."""
    return session.closed is Closed.OPEN


def is_cancellable(job: Job, rules: Rules) -> bool:
    """`cancel_jobs`: waiting or running."""
    return job.state not in TERMINAL or rules.is_(Flaw.TERMINAL_NOT_ABSORBING)


def is_outdated(number: int, newest: int, rules: Rules) -> bool:
    """`newest_sessions`: the worker has a stream with this number or a higher one."""
    return newest >= number and not rules.is_(Flaw.OLD_HELLO_WINS)


@cache
def after_ending(job: Job, ending: Ending, max_retries: int) -> Job:
    """Return the row after `settle_jobs`; losses and returns stay far below their limits within the bounds."""
    budget = Budget(
        attempt=job.attempt,
        max_retries=max_retries,
        lost=0,
        returned=0,
        cancel_requested=job.cancel,
        backoff=(0, 1.0, 0),
    )
    decision = decide(budget, ending)
    return job._replace(state=decision.state, attempt=decision.attempt, place=Place(-1, 0))


def after_cancel(job: Job) -> Job:
    """Return the row after `cancel_jobs`: a waiting one ends, a running one is marked."""
    ended = step(job.state, Event.CANCELLED)
    is_marked_only = job.state is State.RUNNING
    return job._replace(state=job.state if is_marked_only else ended or State.CANCELLED, cancel=True)


def new_job() -> Job:
    """Return the row that `submit_jobs` inserts."""
    return Job(State.PENDING, Attempt(0, 0, 0, 0), Place(-1, 0), 0, False)


def after_step(run: Run, jobs: tuple[Job, ...], number: int) -> tuple[Run, tuple[Job, ...]]:
    """Return the run and the steps after the end of a step: `_note_step` and `_advance`."""
    ended = jobs[number].state
    if run.state is not RunState.RUNNING or ended not in TERMINAL:
        return run, jobs
    if ended is State.FAILED:
        return run._replace(state=RunState.FAILED), jobs
    if ended is State.CANCELLED or run.cancel:
        return run._replace(state=RunState.CANCELLED), jobs
    done = {key for key, job in zip(KEYS, jobs, strict=False) if job.state is State.COMPLETED}
    if is_complete(STEPS, done):
        return run._replace(state=RunState.COMPLETED), jobs
    following = [each for each in next_steps(STEPS, done) if KEYS.index(each.key) >= len(jobs)]
    return run, (*jobs, *(new_job() for _ in following))


def _is_same(job: Job, attempt: Attempt, rules: Rules) -> bool:
    tokens_fit = job.last.token == attempt.token or rules.is_(Flaw.NO_TOKEN)
    return job.last.fence == attempt.fence and tokens_fit
