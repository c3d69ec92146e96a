"""The comparison with other job queues: what its folders declare, and what it makes of figures."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import click
import pytest

from benchmarks.peers import ours, page, report
from benchmarks.peers.__main__ import chosen
from benchmarks.peers.contest import RoundFailed, began_at
from benchmarks.peers.counts import Counts
from benchmarks.peers.environment import NotInstalled, install
from benchmarks.peers.peer import PROGRAMS, Peer, StoreKind, all_peers, entrants, pinned_versions
from benchmarks.peers.report import Figures, Line
from benchmarks.peers.runner import line_of
from benchmarks.peers.store import libpq_variables
from orqestra.bench import load

PEERS = all_peers()
MACHINE = {"cpus": 2, "versions": {}}
COMMIT = {"id": "0123456789abcdef", "dirty": False}


def line(name: str, *seconds: float | None, jobs: int = 1000, durable: bool = True, is_ours: bool = False) -> Line:
    return Line(
        name=name,
        version="1.2.3",
        store="postgres",
        durable=durable,
        settings="",
        notes="",
        jobs=jobs,
        is_ours=is_ours,
        rounds=tuple(None if each is None else Figures(seconds=each, drain_seconds=each / 2) for each in seconds),
    )


def test_all_peers_are_declared() -> None:
    assert [peer.key for peer in PEERS] == [
        *("bullmq", "celery", "dramatiq", "graphile_worker", "pgqueuer", "procrastinate", "saq", "taskiq")
    ]


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.key)
def test_a_peer_pins_its_packages_and_names_no_registry(peer: Peer) -> None:
    versions = pinned_versions(peer)

    assert peer.version == versions[peer.package]
    assert all(re.fullmatch(r"[0-9][0-9a-z.]*", version) for version in versions.values())
    assert not re.search(r"https?:|registry|index", peer.pins.read_text())


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.key)
def test_a_peer_says_what_it_promises_and_how_it_is_asked(peer: Peer) -> None:
    assert peer.durability
    assert peer.settings
    assert peer.starts in {1, 2}
    assert ("SELECT" if peer.store is StoreKind.POSTGRES else "return redis.call") in peer.unfinished
    assert (peer.directory / peer.program[1]).is_file()


def test_peers_on_redis_compete_a_second_time_with_one_that_syncs() -> None:
    found = {entrant.name: entrant.is_durable for entrant in entrants(PEERS)}

    assert found["PgQueuer"]
    assert not found["BullMQ"]
    assert found["BullMQ, AOF always"]
    assert len(found) == 2 * len(PEERS) - sum(peer.store is StoreKind.POSTGRES for peer in PEERS)


def test_the_fastest_peer_gets_as_many_jobs_as_we() -> None:
    assert {peer.key: peer.jobs for peer in PEERS}["graphile_worker"] == max(peer.jobs for peer in PEERS) == ours.JOBS


def test_peers_submit_from_as_many_callers_as_we() -> None:
    callers = {match[1] for peer in PEERS if (match := re.search(r"from (\d+) callers", peer.settings))}

    assert callers == {str(load.CALLERS)}


def test_a_package_without_its_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("celery>=5\n")
    celery = next(peer for peer in PEERS if peer.key == "celery")

    with pytest.raises(ValueError, match="PACKAGE==VERSION"):
        pinned_versions(replace(celery, directory=tmp_path))


async def test_who_cannot_be_installed_is_told_without_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bullmq = next(peer for peer in PEERS if peer.key == "bullmq")
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(NotInstalled, match=r"^there is no npm on this machine$"):
        await install(bullmq, tmp_path / "cache")


def test_an_unknown_peer_is_refused() -> None:
    assert [peer.key for peer in chosen(("saq",))] == ["saq"]
    assert chosen(()) == PEERS
    with pytest.raises(click.BadParameter, match="no peer is called sidekiq; there are bullmq"):
        chosen(("sidekiq", "saq"))


def test_handlers_are_counted_over_processes(tmp_path: Path) -> None:
    # given two processes that took three jobs and one, and one that has begun to write
    for times in (3, 1):
        subprocess.run(
            [sys.executable, "-c", f"import counter\nfor _ in range({times}): counter.count()"],
            env=os.environ | {"COUNTS": str(tmp_path), "PYTHONPATH": str(PROGRAMS)},
            check=True,
        )
    (tmp_path / "unfinished").write_bytes(b"\1")

    counts = Counts.read(tmp_path)

    assert (counts.jobs, counts.processes) == (4, 2)
    assert counts.first_at > 0


def test_a_producer_tells_when_it_began_among_its_warnings() -> None:
    assert began_at('a warning\n{"began_at": 1.5, "ended_at": 2}\n["x"]\n{}\n3\n') == 1.5
    with pytest.raises(RoundFailed):
        began_at("a warning\n")


def test_the_address_is_in_the_variables_of_libpq() -> None:
    assert libpq_variables("postgresql://orqestra@/jobs?host=%2Fa%2Fb&port=5432") == {
        "PGUSER": "orqestra",
        "PGDATABASE": "jobs",
        "PGHOST": "/a/b",
        "PGPORT": "5432",
    }


def test_the_ratio_is_the_median_of_rounds_side_by_side() -> None:
    # given a slow second round, and a third that we alone ran well
    ours, theirs = line("Orqestra", 0.5, 2.0, 0.1, is_ours=True), line("theirs", 1.0, 5.0, None)

    assert ours.jobs_per_s == 2000
    assert ours.drain_per_s == 4000
    assert report.ratio(ours, theirs) == pytest.approx(2.25)
    assert report.ratio(ours, line("absent")) is None


def test_the_peer_to_beat_is_the_fastest_durable_one() -> None:
    lines = [
        line("Orqestra", 0.1, is_ours=True),
        line("forgetful", 0.2, durable=False),
        line("durable", 0.3),
        line("slow", 0.4),
        replace(line("absent"), skipped="there is no npm on this machine"),
    ]

    found = report.document(lines, MACHINE)

    assert found["fastest_durable_peer"] == "durable"
    assert found["ratio"] == pytest.approx(3.0)
    assert [each["ours_to_this"] for each in found["lines"]] == [None, 2.0, 3.0, 4.0, None]
    assert json.loads(json.dumps(found)) == found


def test_the_table_has_the_fastest_first_and_who_was_skipped() -> None:
    lines = [
        line("slow", 0.4),
        line("Orqestra", 0.1, is_ours=True),
        replace(line("absent"), skipped="there is no npm on this machine"),
    ]

    _, _, first, second, last, _, verdict = report.table(report.document(lines, MACHINE)).splitlines()

    assert first == "| Orqestra | 1.2.3 | postgres | yes | 1,000 | 10,000 | 20,000 |  |"
    assert second == "| slow | 1.2.3 | postgres | yes | 1,000 | 2,500 | 5,000 | 4.0 x |"
    assert "skipped: there is no npm on this machine" in last
    assert verdict.startswith("Orqestra is 4.00 times as fast end to end as slow, the fastest durable peer; the bar")
    assert "reached" in verdict


def test_without_a_durable_peer_there_is_no_verdict() -> None:
    lines = [line("Orqestra", 0.1, is_ours=True), line("forgetful", 0.2, durable=False)]

    assert report.verdict(report.document(lines, MACHINE)).startswith("Nothing to compare")


def test_a_line_has_what_its_peer_declares() -> None:
    aof = next(entrant for entrant in entrants(PEERS) if entrant.name == "SAQ, AOF always")

    found = line_of(aof).document()

    assert (found["peer"], found["durable"], found["store"]) == ("SAQ, AOF always", True, "redis")
    assert found["jobs_per_s"] is None


def test_the_page_has_the_table_between_its_markers(tmp_path: Path) -> None:
    # given results of one round
    machine = {"cpus": 2, "cpu": "A CPU", "system": "Linux", "versions": {"postgres": "18.4"}}
    lines = [line("Orqestra", 0.1, is_ours=True), line("theirs", 0.2)]
    results = tmp_path / "20300131T183000Z.json"
    results.write_text(json.dumps(report.document(lines, machine) | {"rounds": 1, "commit": COMMIT}))

    written = page.page(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n", results)

    assert written.startswith(
        f"before\n{page.BEGIN}\n\n[20300131T183000Z.json](results/peers/20300131T183000Z.json): "
        "commit 0123456789ab, median of 1 rounds on 2 CPUs"
    )
    assert "| theirs | 1.2.3 | postgres | yes | 1,000 | 5,000 | 10,000 | 2.0 x |\n" in written
    assert written.endswith(f"\n{page.END}\nafter\n")
    assert "old" not in written
    assert page.page(written, results) == written
