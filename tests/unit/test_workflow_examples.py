"""The examples run on any machine: with a plain shell and what docs/workflows.md says that a command sees."""

import os
import subprocess
from pathlib import Path

import pytest

import orqestra
from orqestra.engine.definitions import parse_definition
from orqestra.model import limits
from orqestra.model.workflow import Step

EXAMPLES = Path(orqestra.__file__).parent / "workflows"
EXPECTED_OUTPUT = {
    "hello": "The step before said 'Hello from ",
    "retry": "done, connected on attempt 3\n",
    "report": "all      499000 in 2000 orders\n",
    "backup": "stored 7.tar, ",
}


@pytest.mark.parametrize("path", sorted(EXAMPLES.iterdir()), ids=lambda path: path.name)
def test_each_example_is_named_as_its_file(path: Path) -> None:
    assert parse_definition(path.name, path.read_bytes()).name == path.stem


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.iterdir()))
def test_each_example_runs_under_a_plain_shell(name: str, tmp_path: Path) -> None:
    definition = parse_definition(name, (EXAMPLES / f"{name}.yaml").read_bytes())
    output = b""
    for step in definition.steps:
        output = _run_step(step, output, tmp_path)

    assert EXPECTED_OUTPUT[name] in output.decode()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["previous"]


def _run_step(step: Step, previous: bytes, directory: Path) -> bytes:
    file = directory / "previous"
    file.write_bytes(previous)
    first = previous[: limits.PREVIOUS_OUTPUT_BYTES].replace(b"\0", b"").rstrip(b"\n")
    environment = {
        "PATH": os.defpath,
        "TMPDIR": str(directory),
        "PREVIOUS_OUTPUT": first.decode("utf-8", "surrogateescape"),
        "ORQESTRA_PREVIOUS_OUTPUT_FILE": str(file),
        "ORQESTRA_JOB_ID": "5",
        "ORQESTRA_RUN_ID": "7",
        "ORQESTRA_FENCE": "1",
        **step.shell.env,
    }
    for attempt in range(1, step.retries.max_retries + 2):
        ended = subprocess.run(
            step.shell.arguments(),
            env={**environment, "ORQESTRA_ATTEMPT": str(attempt)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=20,
        )
        if ended.returncode == 0:
            return ended.stdout
    pytest.fail(f"{step.key} failed: {ended.stderr.decode()}")
