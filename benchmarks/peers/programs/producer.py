"""The producer's side of the protocol with the runner: one JSON object in, one JSON line out.

`program.py submit {"jobs": N, "payload_bytes": B}` submits N jobs and prints when it began to, once it was
connected, and when all were stored: seconds of the monotonic clock, which all processes share.
"""

import json
import sys
import time


def order():
    """Return how many jobs to submit and the payload of each; raises IndexError if nothing was asked."""
    asked = json.loads(sys.argv[2])
    return asked["jobs"], "x" * asked["payload_bytes"]


def batches(jobs, size):
    """Yield the sizes of the batches that make up so many jobs."""
    for at in range(0, jobs, size):
        yield min(size, jobs - at)


def tell(began_at):
    """Say that all is stored by now."""
    print(json.dumps({"began_at": began_at, "ended_at": time.monotonic()}), flush=True)
