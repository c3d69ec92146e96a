"""When the client makes a call again by itself, and what it raises when it does not."""

import socket
import time
from collections import deque

import grpc
import pytest

from orqestra.client import Client, JobSpec, JobType, Patience
from orqestra.client.failures import read_refusal
from orqestra.client.patience import BACKOFF_LAST_SECONDS, backoff_seconds
from orqestra.model import errors
from orqestra.v1.jobs_pb2 import Refusal
from tests.support.scripted_server import Fault, ScriptedJobs, serve

KEYED = JobSpec(type=JobType.NOOP, key="a-key")
UNKEYED = JobSpec(type=JobType.NOOP)
NOT_STORED = (("orqestra-stored", "no"),)
SHORT = Patience(total_seconds=0.5)


async def test_submit_with_key_is_repeated() -> None:
    jobs = ScriptedJobs(faults=deque([Fault(), Fault(status=grpc.StatusCode.ABORTED)]))
    async with serve(jobs) as address, Client(address) as client:
        assert await client.submit(KEYED) == 1
    assert jobs.calls == [1, 1, 1]


async def test_submit_without_key_is_not_repeated() -> None:
    jobs = ScriptedJobs(faults=deque([Fault()]))
    async with serve(jobs) as address, Client(address) as client:
        with pytest.raises(errors.Unavailable, match=r"no answer from the server at 127.*GRPC_ADDR"):
            await client.submit(UNKEYED)
    assert jobs.calls == [1]
    assert not jobs.stored


async def test_submit_that_was_certainly_not_stored_is_repeated_even_without_key() -> None:
    jobs = ScriptedJobs(faults=deque([Fault(trailers=NOT_STORED)]))
    async with serve(jobs) as address, Client(address) as client:
        assert await client.submit(UNKEYED) == 1
    assert jobs.calls == [1, 1]


async def test_unknown_commit_without_key_is_told() -> None:
    trailers = (("orqestra-code", "maybe_stored"),)
    fault = Fault(status=grpc.StatusCode.ABORTED, message="may be stored", trailers=trailers)
    async with serve(ScriptedJobs(faults=deque([fault]))) as address, Client(address) as client:
        with pytest.raises(errors.MaybeStored, match="may be stored"):
            await client.submit(UNKEYED)


async def test_reads_are_repeated_and_writes_without_key_are_not() -> None:
    jobs = ScriptedJobs(faults=deque([Fault(), Fault()]))
    async with serve(jobs) as address, Client(address) as client:
        with pytest.raises(errors.Unavailable):
            await client.cancel([1])
        assert (await client.get(7)).id == 7


async def test_refusals_are_not_repeated() -> None:
    fault = Fault(
        status=grpc.StatusCode.INVALID_ARGUMENT,
        message="queue: 'x y' is not a name",
        trailers=(("orqestra-code", "invalid_input"), *NOT_STORED),
    )
    jobs = ScriptedJobs(faults=deque([fault]))
    async with serve(jobs) as address, Client(address) as client:
        with pytest.raises(errors.InvalidInput) as refused:
            await client.submit(KEYED)
    assert (refused.value.field, refused.value.problem) == ("queue", "'x y' is not a name")
    assert jobs.calls == [1]


async def test_the_servers_wish_to_wait_is_respected() -> None:
    fault = Fault(
        status=grpc.StatusCode.RESOURCE_EXHAUSTED,
        trailers=(("orqestra-code", "overloaded"), ("orqestra-retry-after-ms", "300"), *NOT_STORED),
    )
    began = time.monotonic()
    async with serve(ScriptedJobs(faults=deque([fault]))) as address, Client(address) as client:
        await client.submit(UNKEYED)
    assert time.monotonic() - began >= 0.3


@pytest.mark.alone
async def test_patience_ends() -> None:
    jobs = ScriptedJobs(faults=deque([Fault()] * 1000))
    began = time.monotonic()
    async with serve(jobs) as address, Client(address, patience=SHORT) as client:
        with pytest.raises(errors.Unavailable):
            await client.get(1)
    assert time.monotonic() - began < 2
    assert len(jobs.calls) > 1


@pytest.mark.alone
async def test_a_server_that_swallows_calls_is_given_up() -> None:
    jobs = ScriptedJobs()
    jobs.answer.clear()
    patience = Patience(total_seconds=0.6, call_seconds=0.2)
    began = time.monotonic()
    async with serve(jobs) as address, Client(address, patience=patience) as client:
        with pytest.raises(errors.Unavailable):
            await client.submit(KEYED)
        jobs.answer.set()
    assert time.monotonic() - began < 2


async def test_nobody_listens() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
        async with Client(address, patience=SHORT) as client:
            with pytest.raises(errors.Unavailable, match=rf"{address} \(connection refused\); GRPC_ADDR"):
                await client.get(1)


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("invalid_input", 3, errors.InvalidInput),
        ("not_found", 5, errors.NotFound),
        ("refused", 9, errors.Refused),
        ("overloaded", 8, errors.Overloaded),
        ("unavailable", 14, errors.Unavailable),
        ("storage_unavailable", 14, errors.StorageUnavailable),
        ("maybe_stored", 10, errors.MaybeStored),
        ("", 3, errors.InvalidInput),
        ("", 5, errors.NotFound),
        ("", 9, errors.Refused),
        ("", 14, errors.Unavailable),
        ("", 4, errors.Unavailable),
        ("", 8, errors.OrqestraError),
        ("", 13, errors.OrqestraError),
        ("", 999, errors.OrqestraError),
    ],
)
def test_statuses_become_errors(code: str, status: int, kind: type[errors.OrqestraError]) -> None:
    refusal = Refusal(code=code, status=status, message="no job 12", stored=True)
    failure = read_refusal(refusal, "there:1")
    assert type(failure.error) is kind
    assert not failure.not_stored


def test_not_found_keeps_kind_and_name() -> None:
    error = read_refusal(Refusal(code="not_found", message="no job 12"), "there:1").error
    assert isinstance(error, errors.NotFound)
    assert (error.kind, error.name, str(error)) == ("job", "12", "no job 12")


def test_backoff_grows_to_its_limit() -> None:
    assert all(0 <= backoff_seconds(1) <= 0.1 for _ in range(100))
    assert all(0 <= backoff_seconds(10_000) <= BACKOFF_LAST_SECONDS for _ in range(100))
    assert max(backoff_seconds(10_000) for _ in range(100)) > 1
