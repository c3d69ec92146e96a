"""What bad input gets: the field, the value and what is allowed; nothing stored; the server goes on."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import grpc
import pytest
import pytest_asyncio

from orqestra.v1 import jobs_pb2, workflows_pb2
from tests.support.server import Refusal, RunningServer, Sql, noop, refusal

pytestmark = pytest.mark.asyncio(loop_scope="module")

YEAR_MS = 366 * 24 * 3600 * 1000
SHELL = {"type": "shell"}
SUBMIT = "/orqestra.v1.Jobs/Submit"

# What is submitted, then words that its refusal must have: the field first.
BAD_JOBS: list[tuple[dict[str, Any], list[str]]] = [
    # type and payload
    ({"type": ""}, ["type", "''", "shell, noop"]),
    ({"type": "python"}, ["type", "'python'", "shell, noop"]),
    ({"type": "SHELL"}, ["type", "'SHELL'", "shell, noop"]),
    ({"type": "x" * 5000}, ["type", "shell, noop"]),
    ({"payload": b"{"}, ["payload", "JSON"]),
    ({"payload": b"\xff\xfe"}, ["payload", "JSON"]),
    ({"payload": b'"\xff"'}, ["payload", "JSON"]),
    ({"payload": b"{} {}"}, ["payload", "JSON"]),
    ({"payload": b"[" * 100_000}, ["payload", "JSON"]),
    ({**SHELL}, ["payload", "command", "argv"]),
    ({**SHELL, "payload": b"{}"}, ["payload", "command", "argv"]),
    ({**SHELL, "payload": b"not json"}, ["payload", "JSON"]),
    ({**SHELL, "payload": b"[" * 100_000}, ["payload"]),
    ({**SHELL, "payload": b"[]"}, ["payload", "command"]),
    ({**SHELL, "payload": b"null"}, ["payload", "command"]),
    ({**SHELL, "payload": b'{"command": "a", "argv": ["a"]}'}, ["payload", "both"]),
    ({**SHELL, "payload": b'{"command": 7}'}, ["payload", "command"]),
    ({**SHELL, "payload": b'{"command": " "}'}, ["payload.command", "empty"]),
    ({**SHELL, "payload": b'{"argv": []}'}, ["payload.argv", "empty"]),
    ({**SHELL, "payload": b'{"argv": "ls"}'}, ["payload", "argv"]),
    ({**SHELL, "payload": b'{"command": "a", "cmd": "b"}'}, ["payload", "cmd"]),
    ({**SHELL, "payload": rb'{"command": "a\u0000b"}'}, ["payload.command", "NUL"]),
    ({**SHELL, "payload": rb'{"argv": ["a", "\u0000"]}'}, ["payload.argv", "NUL"]),
    ({**SHELL, "payload": rb'{"command": "a", "cwd": "\u0000"}'}, ["payload.cwd", "NUL"]),
    ({**SHELL, "payload": rb'{"command": "\ud800"}'}, ["payload"]),
    ({**SHELL, "payload": b'{"command": "a", "env": {"A=B": "c"}}'}, ["payload.env", "A=B"]),
    ({**SHELL, "payload": b'{"command": "a", "env": {"A": 1}}'}, ["payload", "env"]),
    ({**SHELL, "payload": b'{"command": "a", "env": {"A": "' + b"x" * 65536 + b'"}}'}, ["payload.env", "65536"]),
    # numbers
    ({"priority": -1}, ["priority", "-1", "0", "9"]),
    ({"priority": 10}, ["priority", "10", "0", "9"]),
    ({"priority": 2**31 - 1}, ["priority", "2147483647"]),
    ({"max_retries": -1}, ["max_retries", "-1", "0", "1000"]),
    ({"max_retries": 1001}, ["max_retries", "1001", "1000"]),
    ({"max_retries": 2**31 - 1}, ["max_retries", "2147483647"]),
    ({"delay_ms": -1}, ["delay_ms", "-1", "0"]),
    ({"delay_ms": YEAR_MS + 1}, ["delay_ms", str(YEAR_MS + 1), str(YEAR_MS)]),
    ({"delay_ms": 2**63 - 1}, ["delay_ms", str(2**63 - 1)]),
    ({"timeout_ms": -1}, ["timeout_ms", "-1", "0"]),
    ({"timeout_ms": 2**63 - 1}, ["timeout_ms", str(2**63 - 1)]),
    ({"grace_ms": -1}, ["grace_ms", "-1", "0"]),
    ({"grace_ms": 2**62}, ["grace_ms", str(2**62)]),
    ({"backoff": jobs_pb2.Backoff(base_ms=-1)}, ["base_ms"]),
    ({"backoff": jobs_pb2.Backoff(base_ms=2**63 - 1)}, ["base_ms"]),
    ({"backoff": jobs_pb2.Backoff(cap_ms=-(2**63))}, ["cap_ms"]),
    ({"backoff": jobs_pb2.Backoff(factor=0.5)}, ["factor", "0.5"]),
    ({"backoff": jobs_pb2.Backoff(factor=float("nan"))}, ["factor", "nan"]),
    ({"backoff": jobs_pb2.Backoff(factor=float("inf"))}, ["factor", "inf"]),
    # times
    ({"at": {"seconds": 1_800_000_000}, "delay_ms": 5}, ["at", "delay_ms"]),
    ({"at": {"seconds": 2**62}}, ["at", str(2**62)]),
    ({"at": {"seconds": -(2**62)}}, ["at", str(-(2**62))]),
    ({"at": {"seconds": 253_402_300_799}}, ["at", "9999"]),
    ({"at": {"seconds": 1_800_000_000, "nanos": -5}}, ["at"]),
    ({"at": {"seconds": 1_800_000_000, "nanos": 2**31 - 1}}, ["at"]),
    # names
    ({"queue": "a b"}, ["queue", "'a b'", "letters"]),
    ({"queue": "-a"}, ["queue", "'-a'"]),
    ({"queue": "ü"}, ["queue", "'ü'"]),
    ({"queue": "a\n"}, ["queue", r"a\n"]),
    ({"queue": "a\0"}, ["queue", r"a\x00"]),
    ({"queue": "x" * 129}, ["queue", "128"]),
    ({"labels": {"": "a"}}, ["labels", "=a"]),
    ({"labels": {"a b": "c"}}, ["labels", "a b=c"]),
    ({"labels": {"a": "b=c"}}, ["labels", "a=b=c"]),
    ({"labels": {"a": "b\0"}}, ["labels", r"a=b\x00"]),
    ({"labels": {"a": "b\n"}}, ["labels", r"a=b\n"]),
    ({"labels": {"a": "x" * 200}}, ["labels", "128"]),
    ({"labels": {f"l{n}": "v" for n in range(33)}}, ["labels", "33", "32"]),
    ({"tags": [""]}, ["tags", "0", "1 to 64"]),
    ({"tags": ["x" * 65]}, ["tags", "65", "64"]),
    ({"tags": ["a\x1fb"]}, ["tags", r"a\x1fb"]),
    ({"tags": ["a\0b"]}, ["tags", r"a\x00b"]),
    ({"tags": ["t"] * 33}, ["tags", "33", "32"]),
    ({"idempotency_key": "x" * 257}, ["idempotency_key", "257", "256"]),
    ({"idempotency_key": "a\0"}, ["idempotency_key", r"a\x00"]),
    ({"idempotency_key": "a\r\nb"}, ["idempotency_key", r"a\r\nb"]),
]

# A text field of JobSpec by its number, to be filled with bytes that are not text.
TEXT_FIELDS = {"type": 1, "queue": 3, "idempotency_key": 12, "tags": 13}


@pytest_asyncio.fixture(loop_scope="module")
async def module_sql(module_database: str) -> AsyncIterator[Sql]:
    connection = await asyncpg.connect(module_database)
    try:
        yield connection
    finally:
        await connection.close()


def raw_submit(server: RunningServer) -> Any:
    """Return Submit as a call that sends any bytes at all."""
    return server.channel.unary_unary(SUBMIT, response_deserializer=jobs_pb2.SubmitResponse.FromString)


def bare(number: int, content: bytes) -> bytes:
    """Return a length-delimited field as it is on the wire, at most 127 bytes of it."""
    return bytes([number << 3 | 2, len(content)]) + content


def check_told(refused: Refusal, words: list[str], *, stored: str | None = "no") -> None:
    field = words[0].split(".")[0]
    assert refused.status is grpc.StatusCode.INVALID_ARGUMENT, refused
    for word in words:
        assert word in refused.message, refused
    assert field in refused.message.split(":")[0], refused
    assert refused.trailers["orqestra-code"] == "invalid_input"
    assert refused.trailers.get("orqestra-stored") == stored
    assert "orqestra-retry-after-ms" not in refused.trailers
    assert len(refused.message) < 1000
    assert refused.message.isprintable(), refused
    check_quiet(refused.message)


def check_quiet(message: str) -> None:
    for inside in ("Traceback", "asyncpg", 'File "', "msgspec", "orqestra.", "Exception"):
        assert inside not in message, message


@pytest.mark.parametrize(("spec", "words"), BAD_JOBS, ids=lambda value: str(value)[:60])
async def test_a_bad_job_is_refused(
    module_server: RunningServer, module_sql: Sql, spec: dict[str, Any], words: list[str]
) -> None:
    refused = await refusal(module_server.jobs.Submit(jobs_pb2.SubmitRequest(job=noop(**spec))))

    check_told(refused, words)
    assert await module_sql.fetchval("SELECT count(*) FROM jobs") == 0


@pytest.mark.parametrize("field", TEXT_FIELDS)
async def test_text_that_is_not_utf8_is_refused_and_named(
    module_server: RunningServer, module_sql: Sql, field: str
) -> None:
    spec = noop(**{} if field == "type" else {"payload": b"{}"}).SerializeToString()
    raw = raw_submit(module_server)

    refused = await refusal(raw(bare(1, spec + bare(TEXT_FIELDS[field], b"a\xff\xfeb"))))

    check_told(refused, [field, "UTF-8"])
    assert await module_sql.fetchval("SELECT count(*) FROM jobs") == 0


async def test_labels_that_are_not_utf8_are_refused_and_named(module_server: RunningServer, module_sql: Sql) -> None:
    raw = raw_submit(module_server)
    label = bare(1, b"\xff") + bare(2, b"b")

    refused = await refusal(raw(bare(1, noop().SerializeToString() + bare(5, label))))

    check_told(refused, ["labels", "UTF-8"])
    assert await module_sql.fetchval("SELECT count(*) FROM jobs") == 0


@pytest.mark.parametrize("junk", [b"\xff", b"\x0a\x7f", b"\x0a\x02\x0a\xff"], ids=["tag", "cut off", "inside"])
async def test_bytes_that_are_no_message_are_refused(
    module_server: RunningServer, module_sql: Sql, junk: bytes
) -> None:
    raw = raw_submit(module_server)

    refused = await refusal(raw(junk))

    assert refused.status is grpc.StatusCode.INVALID_ARGUMENT, refused
    check_quiet(refused.message)
    assert await module_sql.fetchval("SELECT count(*) FROM jobs") == 0


async def test_a_request_without_a_job_is_refused(module_server: RunningServer) -> None:
    check_told(await refusal(module_server.jobs.Submit(jobs_pb2.SubmitRequest())), ["type"])


async def test_a_time_in_the_past_is_due_at_once(module_server: RunningServer, module_sql: Sql) -> None:
    spec = noop()
    spec.at.FromDatetime(datetime.now(UTC) - timedelta(days=3))

    job_id = (await module_server.jobs.Submit(jobs_pb2.SubmitRequest(job=spec))).id

    assert await module_sql.fetchval("DELETE FROM jobs WHERE id = $1 RETURNING NOT delayed", job_id)


READS: list[tuple[str, Any, list[str]]] = [
    ("ListJobs", jobs_pb2.ListJobsRequest(limit=-1), ["limit", "-1", "500"]),
    ("ListJobs", jobs_pb2.ListJobsRequest(limit=501), ["limit", "501", "500"]),
    (
        "ListJobs",
        jobs_pb2.ListJobsRequest(statuses=[jobs_pb2.STATUS_UNSPECIFIED]),
        ["statuses", "0", "pending", "cancelled"],
    ),
    ("ListJobs", jobs_pb2.ListJobsRequest.FromString(bytes([1 << 3, 99])), ["statuses", "99", "pending"]),
    ("ListJobs", jobs_pb2.ListJobsRequest(after=-1), ["after", "-1"]),
    ("ListJobs", jobs_pb2.ListJobsRequest(queue="a\0"), ["queue", r"a\x00"]),
    ("ListJobs", jobs_pb2.ListJobsRequest(type="nonsense"), ["type", "nonsense", "shell, noop"]),
    ("ListJobs", jobs_pb2.ListJobsRequest(tags=["a\0"]), ["tags", r"a\x00"]),
    ("ListJobs", jobs_pb2.ListJobsRequest(labels={"a": "\0"}), ["labels", r"\x00"]),
    ("CancelJob", jobs_pb2.CancelJobRequest(), ["ids", "0", "10000"]),
    ("CancelJob", jobs_pb2.CancelJobRequest(ids=range(1, 10_002)), ["ids", "10001", "10000"]),
    ("ListRuns", workflows_pb2.ListRunsRequest(limit=501), ["limit", "501", "500"]),
    (
        "ListRuns",
        workflows_pb2.ListRunsRequest(statuses=[workflows_pb2.RUN_STATUS_UNSPECIFIED]),
        ["statuses", "0", "running"],
    ),
    ("ListRuns", workflows_pb2.ListRunsRequest(workflow="a\0"), ["workflow", r"a\x00"]),
    ("TriggerWorkflow", workflows_pb2.TriggerWorkflowRequest(name="x", idempotency_key="a\0"), ["idempotency_key"]),
]


@pytest.mark.parametrize(("call", "request_", "words"), READS, ids=[f"{call}-{words[:2]}" for call, _, words in READS])
async def test_a_bad_question_is_refused(
    module_server: RunningServer, call: str, request_: Any, words: list[str]
) -> None:
    stub = module_server.workflows if call.endswith(("Runs", "Workflow")) else module_server.jobs

    check_told(await refusal(getattr(stub, call)(request_)), words)


@pytest.mark.parametrize("job_id", [1, 0, -1, 2**63 - 1, -(2**63)])
@pytest.mark.parametrize("call", ["GetJob", "RetryJob"])
async def test_an_id_that_does_not_exist_is_told(module_server: RunningServer, call: str, job_id: int) -> None:
    request = getattr(jobs_pb2, f"{call}Request")(id=job_id)

    refused = await refusal(getattr(module_server.jobs, call)(request))

    assert refused.status is grpc.StatusCode.NOT_FOUND
    assert refused.message == f"no job {job_id}"
    assert refused.trailers["orqestra-code"] == "not_found"


@pytest.mark.parametrize("call", ["WatchJob", "GetOutput"])
async def test_a_stream_of_an_id_that_does_not_exist_is_told(module_server: RunningServer, call: str) -> None:
    request = getattr(jobs_pb2, f"{call}Request")(id=12345)

    refused = await refusal(getattr(module_server.jobs, call)(request).read())

    assert (refused.status, refused.message) == (grpc.StatusCode.NOT_FOUND, "no job 12345")


@pytest.mark.parametrize(
    ("call", "request_", "thing"),
    [
        ("TriggerWorkflow", workflows_pb2.TriggerWorkflowRequest(name="nope"), "nope"),
        ("TriggerWorkflow", workflows_pb2.TriggerWorkflowRequest(name="a\0b"), "a"),
        ("TriggerWorkflow", workflows_pb2.TriggerWorkflowRequest(name="../../etc/passwd"), "../../etc/passwd"),
        ("GetRun", workflows_pb2.GetRunRequest(id=7), "7"),
        ("CancelRun", workflows_pb2.CancelRunRequest(id=2**63 - 1), str(2**63 - 1)),
    ],
)
async def test_a_run_or_workflow_that_does_not_exist_is_told(
    module_server: RunningServer, call: str, request_: Any, thing: str
) -> None:
    refused = await refusal(getattr(module_server.workflows, call)(request_))

    assert refused.status is grpc.StatusCode.NOT_FOUND, refused
    assert thing in refused.message
    check_quiet(refused.message)
