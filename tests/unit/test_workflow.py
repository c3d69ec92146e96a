"""A snapshot gives back what went in, and what may run next follows from it alone."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orqestra.model.errors import InvalidDefinition
from orqestra.model.payload import ResourceLimits, ShellPayload
from orqestra.model.retry import RetryPolicy
from orqestra.model.retry_rules import Jitter
from orqestra.model.workflow import Step, define, first_steps, from_snapshot, is_complete, next_steps

DEFINITION = define("letters", [Step(key=key, shell=ShellPayload(command=key)) for key in ("x", "y", "z")])
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
SHELLS = st.builds(
    ShellPayload,
    command=TEXTS,
    env=st.dictionaries(st.from_regex(r"[A-Z_]{1,5}", fullmatch=True), TEXTS, max_size=3),
    cwd=st.none() | TEXTS,
    stdin=st.none() | TEXTS,
    nice=st.none() | st.integers(0, 19),
    run_as=st.none() | NAMES,
    allow_background=st.booleans(),
    limits=st.none()
    | st.builds(ResourceLimits, open_files=st.integers(1, 9), memory_bytes=st.none() | st.integers(1, 9)),
) | st.builds(ShellPayload, argv=st.lists(TEXTS, min_size=1, max_size=3).map(tuple))
STEPS = st.builds(
    Step,
    key=NAMES,
    shell=SHELLS,
    retries=st.builds(
        RetryPolicy,
        max_retries=st.integers(0, 1000),
        factor=st.floats(1, 100),
        base_ms=st.integers(0, 10**6),
        on=st.lists(st.sampled_from(["3", "oom", "signal:9"])).map(tuple),
        never=st.lists(st.sampled_from(["3", "oom", "signal:9"])).map(tuple),
        jitter=st.sampled_from(Jitter),
    ),
    timeout_ms=st.integers(0, 10**9),
    priority=st.integers(0, 9),
    labels=st.dictionaries(NAMES, NAMES, max_size=3),
)


@settings(deadline=None)  # pytest's timeout bounds it
@given(NAMES, st.lists(STEPS, min_size=1, max_size=5, unique_by=lambda step: step.key))
def test_a_snapshot_gives_back_the_definition(name: str, steps: list[Step]) -> None:
    definition = define(name, steps)

    assert from_snapshot(json.loads(json.dumps(definition.snapshot()))) == definition


def test_a_snapshot_of_a_later_version_of_the_same_format_is_read() -> None:
    snapshot = json.loads(json.dumps(DEFINITION.snapshot()))
    snapshot["parameters"] = {"day": "monday"}
    snapshot["steps"][0]["condition"] = "always"
    del snapshot["steps"][1]["retries"], snapshot["steps"][1]["labels"]

    definition = from_snapshot(snapshot)

    assert definition.digest == snapshot["digest"]
    assert definition.steps[1].retries == RetryPolicy()
    assert [step.needs for step in definition.steps] == [(), ("x",), ("y",)]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"version": 2}, "has version 2; this server reads version 1"),
        ({"version": None}, "has version None"),
        ({"steps": None}, "steps"),
        ({"name": 5}, "name"),
        ({"steps": [{"key": "a", "shell": {"command": "a", "container": "b"}}]}, "container"),
    ],
)
def test_a_snapshot_that_cannot_be_run_is_refused(change: dict[str, Any], problem: str) -> None:
    snapshot = {**DEFINITION.snapshot(), **change}

    with pytest.raises(InvalidDefinition, match=problem):
        from_snapshot(snapshot)


def test_the_digest_is_that_of_the_content() -> None:
    same = define("a", [Step(key="x", shell=ShellPayload(command="x"), labels={"k": "v", "a": "b"})])
    again = define("a", [Step(key="x", shell=ShellPayload(command="x"), labels={"a": "b", "k": "v"})])
    other = define("a", [Step(key="x", shell=ShellPayload(command="x"), labels={"k": "v"})])

    assert same.digest == again.digest
    assert same.digest != other.digest


def test_steps_follow_one_another() -> None:
    assert [step.key for step in first_steps(DEFINITION)] == ["x"]
    assert [step.key for step in next_steps(DEFINITION, {"x"})] == ["y"]
    assert [step.key for step in next_steps(DEFINITION, {"x", "y"})] == ["z"]
    assert next_steps(DEFINITION, {"x", "y", "z"}) == ()
    assert not is_complete(DEFINITION, {"x", "y"})
    assert is_complete(DEFINITION, {"x", "y", "z"})


def test_steps_of_a_graph_wait_for_all_they_need() -> None:
    # what a later version may write: a, then b and c at once, then d
    steps = [
        {"key": key, "shell": {"command": key}, "needs": needs}
        for key, needs in (("a", []), ("b", ["a"]), ("c", ["a"]), ("d", ["b", "c"]))
    ]
    graph = from_snapshot({"version": 1, "name": "graph", "digest": "", "steps": steps})

    assert [step.key for step in next_steps(graph, {"a"})] == ["b", "c"]
    assert [step.key for step in next_steps(graph, {"a", "b"})] == ["c"]
    assert [step.key for step in next_steps(graph, {"a", "b", "c"})] == ["d"]


def test_a_payload_holds_only_what_is_set() -> None:
    shell = ShellPayload(command="echo ü", stdin="")

    assert Step(key="a", shell=shell).payload() == '{"command":"echo ü","stdin":""}'.encode()
