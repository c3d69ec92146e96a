"""The JSON schema: what docs/json.md promises is what is printed."""

import base64
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orqestra.cli import documents
from orqestra.cli.status import processes_text
from orqestra.client import decode
from orqestra.client.values import Job
from orqestra.v1 import jobs_pb2, workflows_pb2

PAGE = Path(__file__).parents[2] / "docs" / "json.md"
PROMISED = {
    *("id", "type", "status", "queue", "priority", "attempt", "max_retries", "exit_code", "exit_signal"),
    *("reason", "error", "stdout", "stderr", "truncated", "worker", "labels", "tags", "created_at"),
    *("available_at", "started_at", "finished_at", "attempts"),
}


def documented(section: str) -> list[str]:
    """Return the first column of the table under a heading of docs/json.md."""
    text = PAGE.read_text().split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `(\w+)`", text, re.MULTILINE)


def job(**fields: object) -> Job:
    message = jobs_pb2.Job(id=7, type="shell", status=jobs_pb2.STATUS_FAILED, queue="default", priority=4)
    message.created_at.FromDatetime(datetime(2030, 1, 31, 18, 30, 0, 120, tzinfo=UTC))
    message.attempts.add(number=1, outcome="failed", exit_code=3, stdout=b"\xff\x00")
    message.attempts.add(outcome="lost")
    message.MergeFrom(jobs_pb2.Job(**fields))  # type: ignore[arg-type]  # a name decides the type
    return decode.job(message)


def printed(document: documents.Document, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    documents.print_document(document)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    found = json.loads(lines[0])
    assert isinstance(found, dict)
    return found


def test_a_job_has_what_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    document = printed(documents.of_job(job(payload=b'{"command":"exit 3"}')), capsys)
    assert list(document) == documented("A job")
    assert set(document) >= PROMISED
    attempts = document["attempts"]
    assert isinstance(attempts, list)
    assert list(attempts[0]) == documented("An attempt")
    assert [attempt["number"] for attempt in attempts] == [1, None]


def test_rules_and_processes_are_in_the_document(capsys: pytest.CaptureFixture[str]) -> None:
    rules = jobs_pb2.RetryRules(on=["75"], never=["signal:9"])
    found = job(
        retry=rules, backoff=jobs_pb2.Backoff(jitter=jobs_pb2.JITTER_NONE), killed_processes=2, left_processes=1
    )
    document = printed(documents.of_job(found), capsys)
    assert document["retry"] == {"on": ["75"], "never": ["signal:9"]}
    assert document["backoff"] == {"base_ms": 0, "factor": 0.0, "cap_ms": 0, "jitter": "none"}
    assert (document["killed_processes"], document["left_processes"]) == (2, 1)


def test_an_older_server_says_nothing_of_rules(capsys: pytest.CaptureFixture[str]) -> None:
    document = printed(documents.of_job(job()), capsys)
    assert document["retry"] == {"on": [], "never": []}
    assert (document["killed_processes"], document["left_processes"]) == (0, 0)


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ({}, None),
        ({"killed_processes": 2}, "2 killed after the command"),
        ({"killed_processes": 2, "left_processes": 1}, "2 killed and 1 left after the command"),
    ],
)
def test_people_are_told_of_processes_only_where_there_were_some(counts: dict[str, int], told: str | None) -> None:
    assert processes_text(job(**counts)) == told


def test_a_listed_job_has_the_same_keys() -> None:
    whole, listed = documents.of_job(job()), documents.of_job(job(), listed=True)
    assert list(whole) == list(listed)
    assert {name for name in listed if listed[name] is None} >= {"payload", "stdout", "stderr", "attempts"}


def test_absent_is_null_and_zero_is_zero(capsys: pytest.CaptureFixture[str]) -> None:
    document = printed(documents.of_job(job(exit_code=0)), capsys)
    assert document["exit_code"] == 0
    for name in ("exit_signal", "reason", "error", "worker", "run_id", "step", "timeout_ms", "finished_at"):
        assert document[name] is None


def test_times_have_a_zone(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(documents.of_job(job()), capsys)["created_at"] == "2030-01-31T18:30:00.000120Z"


def test_bytes_that_are_no_text_are_exact() -> None:
    data = bytes(range(256))
    document = documents.of_bytes("stdout", data)
    assert base64.b64decode(document["stdout_base64"]) == data
    assert "\ufffd" in document["stdout"]
    assert documents.of_bytes("stdout", "naïve\0".encode()) == {"stdout": "naïve\0", "stdout_base64": None}


def test_a_payload_keeps_its_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    payload = b'{"big": 123456789012345678901234567890}'
    assert printed(documents.of_job(job(payload=payload)), capsys)["payload"] == json.loads(payload)


def test_a_run_has_what_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    run = workflows_pb2.Run(id=3, workflow="hello", status=workflows_pb2.RUN_STATUS_RUNNING)
    run.steps.add(key="one", job=jobs_pb2.Job(id=9, status=jobs_pb2.STATUS_RUNNING))
    run.steps.add(key="two")
    document = printed(documents.of_run(decode.run(run)), capsys)
    assert list(document) == documented("A run")
    steps = document["steps"]
    assert isinstance(steps, list)
    assert [step["job"] and step["job"]["id"] for step in steps] == [9, None]


def test_workers_are_as_documented(capsys: pytest.CaptureFixture[str]) -> None:
    message = jobs_pb2.Worker(id="w", name="here", slots=4, queues=["default"], labels={"gpu": "yes"})
    [worker] = documents.of_workers([decode.worker(message)])["workers"]
    assert list(worker) == documented("A worker")
    capsys.readouterr()


def test_errors_can_hold_any_text(capsys: pytest.CaptureFixture[str]) -> None:
    error = {"error": {"code": "invalid_input", "message": "\udcff", "field": None}}
    assert printed(error, capsys) == {"error": {"code": "invalid_input", "message": "?", "field": None}}
