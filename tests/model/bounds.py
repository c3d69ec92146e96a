"""How much of what may happen is searched: what the tests can wait for, and what `--deep` can."""

from typing import Final

from tests.model.flaws import Flaw
from tests.model.guards import Rules

# Each about doubles or triples the states with one more of anything; a fault multiplies them by twenty.
SHALLOW: Final = {
    "a job, one fault, a cancel, a retry by an operator": Rules(),
    "a job with a retry of its own, one fault, a cancel": Rules(max_retries=1, retries=0),
    "a job, two faults": Rules(faults=2, cancels=0, retries=0, can_fail=False),
    "a run of two steps, one fault, a cancel": Rules(steps=2, retries=0),
    "a run of two steps, a cancel, a retry by an operator": Rules(steps=2, faults=0),
}
DEEP: Final = {
    "a job, one fault, a cancel, a retry of its own and one by an operator": Rules(max_retries=1, is_deep=True),
    "a job, two faults, a cancel": Rules(faults=2, retries=0),
    "a job, two faults, a retry by an operator": Rules(faults=2, cancels=0),
    "a run of two steps, one fault, a cancel, a retry by an operator": Rules(steps=2),
}


def of_flaw(flaw: Flaw) -> Rules:
    """Return the bounds within which a mistake shows: those of a plain job, but where it takes more."""
    match flaw:
        case Flaw.ADVANCE_OUTSIDE_TX:
            return Rules(flaw=flaw, steps=2, cancels=0, retries=0, can_fail=False)
        case Flaw.OLD_HELLO_WINS:
            return Rules(flaw=flaw, faults=2, cancels=0, retries=0, can_fail=False)
        case Flaw.NO_TOKEN:
            return Rules(flaw=flaw, cancels=0)
        case Flaw.CLAIM_IGNORES_CANCEL:
            return Rules(flaw=flaw, retries=0)
        case _:
            return Rules(flaw=flaw)
