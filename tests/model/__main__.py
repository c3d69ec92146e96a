"""Search the protocol, then its broken variants: `python -m tests.model [--deep] [--flaw NAME]`."""

import argparse
import time

from tests.model.bounds import DEEP, SHALLOW, of_flaw
from tests.model.flaws import BREAKS, Flaw
from tests.model.guards import Rules
from tests.model.search import Found, explore
from tests.model.words import Invariant


def main() -> int:
    """Return 0 if the protocol holds and every broken variant is rejected as it should be."""
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("--deep", action="store_true", help="larger bounds: minutes, and some gigabytes of memory")
    parser.add_argument("--flaw", type=Flaw, choices=list(Flaw), help="this broken variant only")
    options = parser.parse_args()
    flaws = [options.flaw] if options.flaw else list(Flaw)
    searches = {} if options.flaw else DEEP if options.deep else SHALLOW
    is_sound = True
    for name, rules in searches.items():
        is_sound &= _tell(name, rules, None).failure is None
    for flaw in flaws:
        found = _tell(flaw, of_flaw(flaw), BREAKS[flaw]).failure
        is_sound &= (found and found.invariant) is BREAKS[flaw]
    return 0 if is_sound else 1


def _tell(name: str, rules: Rules, wanted: Invariant | None) -> Found:
    began = time.monotonic()
    found = explore(rules, wanted)
    seconds = time.monotonic() - began
    print(f"{name}: {found.states} states, {found.transitions} transitions, depth {found.depth}, {seconds:.1f} s")
    print(f"{found.failure}\n" if found.failure else "holds\n", flush=True)
    return found


if __name__ == "__main__":
    raise SystemExit(main())
