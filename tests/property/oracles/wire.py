"""Messages of the hot path as protobuf has them, to be compared with what `wire` reads and writes."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from hypothesis import strategies as st

from orqestra.v1 import jobs_pb2
from orqestra.v1 import worker_pb2 as pb

INLINE_BYTES: Final = 8192
CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
VARINT, FIXED_64, LENGTH, FIXED_32 = 0, 1, 2, 5

# Few numbers, so that they collide; and the extremes.
int64 = st.integers(0, 4) | st.integers(-(2**63), 2**63 - 1)
count = st.integers(0, 3) | st.integers(0, 2**63 - 1)
uint64 = st.integers(0, 3) | st.integers(0, 2**64 - 1)
int32 = st.integers(0, 2) | st.integers(-(2**31), 2**31 - 1)
text = st.text(st.characters(codec="utf-8"), max_size=6)
some_bytes = st.binary(max_size=12)
# Around the most that a result may carry.
output = some_bytes | st.integers(INLINE_BYTES - 1, INLINE_BYTES + 1).map(bytes)
attempts = st.builds(pb.AttemptRef, job_id=int64, fence=int64, token=int64)


# Results


def plain_result(attempt: pb.AttemptRef, stdout: bytes, stderr: bytes, usage: Sequence[int]) -> pb.Result:
    """Return a success of which nothing special is to be told."""
    wall_us, user_us, system_us, max_rss_kb = usage
    return pb.Result(
        attempt=attempt,
        ok=True,
        reason="exited",
        exit_code=0,
        stdout=stdout,
        stderr=stderr,
        stdout_bytes=len(stdout),
        stderr_bytes=len(stderr),
        started_at_us=1,
        wall_us=wall_us,
        user_us=user_us,
        system_us=system_us,
        max_rss_kb=max_rss_kb,
    )


plain_results = st.builds(plain_result, attempts, output, output, st.tuples(count, count, count, count))
# What is said besides, or instead: any field, any value.
changes = st.fixed_dictionaries(
    {},
    optional={
        "ok": st.booleans(),
        "reason": st.sampled_from(["exited", "timeout", "returned", ""]) | text,
        "exit_code": st.just(0) | int32,
        "exit_signal": st.just(0) | int32,
        "error": text,
        "stdout": some_bytes,
        "stderr": some_bytes,
        "stdout_bytes": int64,
        "stderr_bytes": int64,
        "truncated": st.booleans(),
        "started_at_us": int64,
        "wall_us": int64,
        "user_us": int64,
        "system_us": int64,
        "max_rss_kb": int64,
        "stdout_stored": st.booleans(),
        "stderr_stored": st.booleans(),
        "killed_processes": int32,
        "left_processes": int32,
    },
)


def changed(result: pb.Result, change: Mapping[str, Any]) -> pb.Result:
    """Return a result with other values of some fields."""
    copy = pb.Result()
    copy.CopyFrom(result)
    for name, value in change.items():
        setattr(copy, name, value)
    return copy


one_change = changes.filter(bool).map(lambda change: dict([next(iter(change.items()))]))
results = (
    plain_results
    | st.builds(changed, plain_results, one_change | changes)
    | st.builds(changed, st.builds(pb.Result, attempt=attempts), changes)
)


def attempt_in(message: pb.AttemptRef) -> tuple[int, int, int]:
    """Return an attempt as `wire` has it."""
    return message.job_id, message.fence, message.token


# Encodings that protobuf reads, though it never writes them


def varint(value: int) -> bytes:
    """Return a whole number of 64 bits."""
    value &= 2**64 - 1
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def field(number: int, value: int | bytes, wire_type: int | None = None) -> bytes:
    """Return a field: a number as varint unless it is said otherwise, bytes with their length before them."""
    if isinstance(value, bytes):
        fixed = wire_type in (FIXED_64, FIXED_32)
        tag = varint(number << 3 | (wire_type if fixed and wire_type is not None else LENGTH))
        return tag + value if fixed else tag + varint(len(value)) + value
    return varint(number << 3 | VARINT) + varint(value)


# Numbers that none of our messages has.
unknown_numbers = st.integers(100, 2**29 - 1)
unknown_fields = st.lists(
    st.builds(field, unknown_numbers, st.integers(0, 2**64 - 1) | some_bytes)
    | st.builds(field, unknown_numbers, st.binary(min_size=8, max_size=8), st.just(FIXED_64))
    | st.builds(field, unknown_numbers, st.binary(min_size=4, max_size=4), st.just(FIXED_32)),
    max_size=3,
).map(b"".join)


# Jobs


def stripped(job: jobs_pb2.JobSpec) -> jobs_pb2.JobSpec:
    """Return a job without what it has of its own."""
    shape = jobs_pb2.JobSpec()
    shape.CopyFrom(job)
    shape.ClearField("payload")
    shape.ClearField("idempotency_key")
    return shape


def unique(values: Iterable[bytes]) -> list[bytes]:
    """Return each value once, in the order of first appearance."""
    return list(dict.fromkeys(values))
