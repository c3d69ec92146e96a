"""What the evidence is read from: the journal, outputs, the keys of Redis."""

from hashlib import sha256

import pytest

from tests.chaos.checker import check
from tests.chaos.evidence import Allowance, is_family, parse_journal, read_hints
from tests.chaos.scene import Scene
from tests.chaos.stories import one_job
from tests.support.hints import LANE, NOW_MS, server_on


def test_a_journal_is_read_line_by_line() -> None:
    digest = sha256(b"").hexdigest()
    text = f"start 1 1 1 77 12.50\nstart 2 1 1 78 12.60\nend 2 1 1 78 12.70 {digest}\nend 1 1"

    start, end = parse_journal(text, since_id=1)

    assert (start.kind, start.job_id, start.fence, start.attempt, start.pid, start.uptime_s) == (
        "start",
        2,
        1,
        1,
        78,
        12.6,
    )
    assert (end.kind, end.digest) == ("end", digest)
    assert len(parse_journal(text)) == 3


@pytest.mark.parametrize("line", ["", "begin 1 1 1 1 1.0", "start 1 1 1 1", "start a 1 1 1 1.0", "end 1 1 1 1 1.0 x"])
def test_garbage_in_a_journal_is_an_error(line: str) -> None:
    with pytest.raises(ValueError, match="line 2"):
        parse_journal(f"start 1 1 1 77 12.50\n{line}\n")


@pytest.mark.parametrize(("output", "is_whole"), [(b"1 1 1\nabc", True), (b"1 1 1\nabd", False), (b"1 1 1\nab", False)])
def test_larger_output_is_compared_by_its_digest(output: bytes, is_whole: bool) -> None:
    scene = Scene()
    scene.connect()
    one_job(scene)
    scene.tables["jobs"][1].update(output=output, stdout_bytes=len(output))
    digest = sha256(b"1 1 1\nabc").hexdigest()
    journal = tuple(type(line)(**{**vars(line), "digest": digest}) for line in scene.journal)

    findings = check(scene.evidence(journal=journal), Allowance())

    assert findings.ok == is_whole


@pytest.mark.parametrize(
    ("key", "is_known"),
    [
        *[(f"{{oq}}:{name}", True) for name in ("epoch", "delayed", "processing", "partial", "audit")],
        *[("{oq}:ready:0000000c", True), ("{oq}:filling:0000000c", True)],
        *[("{oq}:ready:12", False), ("{oq}:epoch:0000000c", False), ("{oq}:lock", False), ("epoch", False)],
    ],
)
def test_key_families_are_known(key: str, is_known: bool) -> None:
    assert is_family(key, "{oq}:") == is_known


async def test_hints_are_read_wherever_they_are(redis_url: str, redis_namespace: str) -> None:
    async with server_on(redis_url, redis_namespace, window=2) as server:
        await server.begin()
        await server.push((1, 4), (2, 9))
        await server.take(1, (1, str(LANE).encode()))
        await server.push((3, 4), (4, 4))
        await server.push((5, 4), lane=LANE + 1, due_ms=NOW_MS + 1000)
        await server.redis.set(f"{{{redis_namespace}}}:lock", "x")

        hints = await read_hints(redis_url, redis_namespace)

    # Job 2 is the best one and was taken; of the others two fit into the window.
    assert dict(hints.ready) == {LANE: frozenset({1, 3})}
    assert (hints.processing, hints.delayed, hints.partial) == (frozenset({2}), frozenset({5}), frozenset({LANE}))
    assert {key for key in hints.strange_keys if redis_namespace in key} == {f"{{{redis_namespace}}}:lock"}
