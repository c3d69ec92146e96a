"""Measures a few streams and then thousands, prints both side by side, and writes JSON if told where."""

import argparse
import asyncio
import json
import resource
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.fleet.figures import Figures, table
from benchmarks.fleet.phase import Plan, measure
from orqestra import log
from orqestra.bench.machine import machine, versions
from orqestra.embedded.stack import Stack


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__)
    parser.add_argument("--streams", type=int, nargs="+", default=[2, 2000], help="how many, one run for each number")
    parser.add_argument("--slots", type=int, default=2000, help="of all streams together")
    parser.add_argument("--processes", type=int, default=4, help="that the simulated workers share")
    parser.add_argument("--settle-seconds", type=float, default=5.0, help="after they have connected")
    parser.add_argument("--idle-seconds", type=float, default=60.0, help="how long nothing happens")
    parser.add_argument("--rate", type=int, default=200, help="jobs a second while latency is measured")
    parser.add_argument("--rate-seconds", type=float, default=15.0, help="for how long")
    parser.add_argument("--jobs", type=int, default=20_000, help="how many while throughput is measured")
    parser.add_argument("--directory", type=Path, help="where to keep the logs and the data  [default: nowhere]")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    return parser.parse_args()


async def run(directory: Path, streams: Sequence[int], plan: Plan) -> list[Figures]:
    """Measure each number of streams on one Postgres and one Redis, with a server for each."""
    async with Stack(directory, workers=0) as stack:
        return [await measure(stack, each, plan) for each in streams]


def main() -> None:
    given = options()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The processes below inherit it: the server has a descriptor for each stream, and so have the workers.
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    log.configure("warning", "text")
    plan = Plan(
        slots=given.slots,
        processes=given.processes,
        settle_seconds=given.settle_seconds,
        idle_seconds=given.idle_seconds,
        rate_per_s=given.rate,
        rate_seconds=given.rate_seconds,
        jobs=given.jobs,
    )
    with tempfile.TemporaryDirectory(prefix="orqestra-fleet-") as temporary:
        found = asyncio.run(run(given.directory or Path(temporary), given.streams, plan))
    print(table(found))
    if given.json is not None:
        document = {"machine": machine(), "versions": versions(), "fleet": [each.document() for each in found]}
        given.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
