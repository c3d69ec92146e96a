"""What must hold: checked on each move, with the world before it and after it."""

from orqestra.model.lifecycle import TERMINAL, RunState, State
from tests.model.words import Act, Closed, Deed, Invariant, Job, Move, Phase, World


def broken(before: World, move: Move) -> Invariant | None:
    """Return the invariant that this move breaks, if any."""
    after = move.after
    if move.deed is not None and (found := _by_deed(before, after, move.deed)):
        return found
    if before.jobs == after.jobs and before.run == after.run:
        return None
    for number, (old, new) in enumerate(zip(before.jobs, after.jobs, strict=False)):
        if old != new and (found := _by_row(number, old, new, move.deed)):
            return found
    return _by_run(before, after) if after.run else None


def _by_row(number: int, old: Job, new: Job, deed: Deed | None) -> Invariant | None:
    if old.state in TERMINAL and (deed is None or deed.act is not Act.RETRY):
        return Invariant.ONE_END
    is_claim = deed is not None and deed.act is Act.CLAIM and deed.attempt.job == number
    if new.last.claim != old.last.claim and not is_claim:
        return Invariant.RISING
    if old.cancel and new.state not in {old.state, State.CANCELLED} and (deed is None or deed.act is not Act.RETRY):
        return Invariant.CANCELLED
    return None


def _by_deed(before: World, after: World, deed: Deed) -> Invariant | None:
    job = before.jobs[deed.attempt.job]
    match deed.act:
        case Act.CLAIM:
            return _claim(job, deed)
        case Act.START:
            return None if _runs(job, deed) else Invariant.ALONE
        case Act.SETTLE:
            return _settle(job, deed)
        case Act.FORGET:
            return Invariant.KEPT if _runs(after.jobs[deed.attempt.job], deed) else None
        case Act.SWEEP:
            return _sweep(before, deed)
        case Act.RETRY:
            return None


def _runs(job: Job, deed: Deed) -> bool:
    """Return whether the row runs, as the very claim that the deed named."""
    return job.state is State.RUNNING and job.last.claim == deed.attempt.claim


def _settle(job: Job, deed: Deed) -> Invariant | None:
    if job.last.claim != deed.attempt.claim:
        return Invariant.CURRENT
    return None if job.place == deed.place else Invariant.OWNED


def _claim(job: Job, deed: Deed) -> Invariant | None:
    if job.state in TERMINAL:
        return Invariant.ONE_END
    if job.cancel:
        return Invariant.CANCELLED
    if job.state is State.RUNNING:
        return Invariant.ALONE
    return None if deed.attempt.claim == job.last.claim + 1 else Invariant.RISING


def _sweep(before: World, deed: Deed) -> Invariant | None:
    """After its lease is over, a worker's command may run on; what it might still start may not be given away.

    Without a lapsed lease nothing may be given away that any worker has, be it in its spool.
    """
    for worker in before.workers:
        for held in worker.held:
            if held.attempt.job != deed.attempt.job or held.attempt.claim != deed.attempt.claim:
                continue
            may_start = held.phase is Phase.WAITING and worker.sure
            if deed.closed is not Closed.LAPSED or may_start:
                return Invariant.ALONE
    return None


def _by_run(before: World, after: World) -> Invariant | None:
    run, was = after.run[0], before.run[0]
    if len(after.jobs) > len(before.jobs):
        previous = after.jobs[len(before.jobs) - 1]
        if previous.state is not State.COMPLETED or before.jobs[-1].state is State.COMPLETED:
            return Invariant.ORDERED
        if was.cancel or was.state is not RunState.RUNNING:
            return Invariant.CANCELLED
    has_open_step = any(job.state not in TERMINAL for job in after.jobs)
    return None if has_open_step == (run.state is RunState.RUNNING) else Invariant.WHOLE
