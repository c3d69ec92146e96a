"""Runs the comparison: `python -m benchmarks.peers`, see --help. `make bench-peers` calls it."""

import asyncio
import json
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from benchmarks.commit import commit
from benchmarks.peers import page, report
from benchmarks.peers.peer import Peer, all_peers
from benchmarks.peers.runner import compete
from orqestra.bench.machine import machine, version_of, versions
from orqestra.embedded import postgres, redis

CACHE = Path(".benchmarks") / "peers"


@click.command()
@click.option("--only", multiple=True, metavar="NAME", help="Only this peer (a folder of programs/); repeatable.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="How often everybody runs.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the result there.")
@click.option("--document", is_flag=True, help="Keep the result, and write the table into benchmarks/README.md.")
def main(*, only: tuple[str, ...], rounds: int, json_file: Path | None, document: bool) -> None:
    """Run Orqestra and other job queues side by side on this machine, and print the table."""
    peers = chosen(only)
    began = time.monotonic()
    lines = asyncio.run(until_signal(peers, rounds))
    result = report.document(lines, {**machine(), "versions": {**versions(), **store_versions()}})
    result |= {"rounds": rounds, "commit": commit(), "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
    say(f"{time.monotonic() - began:.0f} s in all\n")
    print(report.table(result), flush=True)
    if json_file is not None:
        write(result, json_file)
    if document:
        page.RESULTS.mkdir(parents=True, exist_ok=True)
        write(result, page.RESULTS / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json")
        page.write()


def chosen(only: tuple[str, ...]) -> list[Peer]:
    """Return the peers of these names, all if there are none."""
    peers = all_peers()
    unknown = set(only) - {peer.key for peer in peers}
    if unknown:
        names = ", ".join(peer.key for peer in peers)
        raise click.BadParameter(f"no peer is called {', '.join(sorted(unknown))}; there are {names}")
    return [peer for peer in peers if not only or peer.key in only]


async def until_signal(peers: list[Peer], rounds: int) -> list[report.Line]:
    """Have everybody compete; a signal ends the run, and all that it started."""
    task = asyncio.ensure_future(compete(peers, rounds, CACHE.absolute(), say))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        raise click.Abort from None


def store_versions() -> dict[str, str]:
    """Return the versions of the programs that keep the jobs."""
    return {
        "postgres": version_of(postgres.find_binaries() / "postgres"),
        "redis-server": version_of(redis.find_program()),
    }


def say(text: str) -> None:
    """Tell how far it is."""
    print(text, file=sys.stderr, flush=True)


def write(result: dict[str, Any], path: Path) -> None:
    """Write the result as JSON."""
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
