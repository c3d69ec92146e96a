"""The program as a whole: start-up time, the list of commands, what bad input gets, exit codes."""

import json
import os
import statistics
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import click
import pytest

from orqestra.cli.commands import COMMANDS
from orqestra.cli.entry import run
from orqestra.cli.failure import EXIT_CODES, ExitCode, exit_code, report, report_unexpected
from orqestra.model import errors

PYTHON = (sys.executable,)
# The promise is 150 ms for `orqestra --help`. What the bare interpreter takes is the machine's, not ours.
HELP_SECONDS = 0.150
HEAVY = ("grpc", "asyncio", "rich", "structlog", "msgspec", "orjson", "orqestra.client", "orqestra.settings")


def seconds(*arguments: str) -> float:
    began = time.perf_counter()
    subprocess.run([*PYTHON, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


@pytest.mark.alone
def test_help_is_quick() -> None:
    seconds("-m", "orqestra", "--help")  # compiles what was not
    helps = [seconds("-m", "orqestra", "--help") for _ in range(7)]
    bares = [seconds("-c", "pass") for _ in range(7)]
    assert min(helps) - min(bares) < HELP_SECONDS - 0.02, (statistics.median(helps), statistics.median(bares))


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys; from orqestra.cli.entry import run; run(['--help']); "
        f"sys.exit([name for name in {HEAVY} if name in sys.modules] or 0)"
    )
    done = subprocess.run([*PYTHON, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_says_of_a_command_what_it_says_itself(name: str) -> None:
    entry = COMMANDS[name]
    command = getattr(import_module(entry.module), entry.attribute)
    assert isinstance(command, click.Command)
    assert command.name == name
    assert command.help is not None
    first_sentence = command.help.split("\n")[0].split(". ")[0].rstrip(".") + "."
    assert first_sentence == entry.help


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("frobnicate", "No such command 'frobnicate'"),
        ("status abc", "'abc' is not an id"),
        ("status 0", "'0' is not an id"),
        ("status 9223372036854775808", "is not an id"),
        ("list --status=done", "'done' is not known; allowed are pending, running"),
        ("list --type=docker", "'docker' is not one of"),
        ("list --limit=0", "--limit"),
        ("list --limit=501", "--limit"),
        ("list --label=gpu", "'gpu' is not of the form key=value"),
        ("submit", "give a command after --, or --payload"),
        ("submit --payload={", "payload: not JSON"),
        ("submit --payload={}", "payload: needs either command or argv"),
        ("submit --payload=@/does/not/exist", "payload: '/does/not/exist' can't be read"),
        ('submit --payload={"command":"x"} -- x', "--payload holds all of the job"),
        ("submit --type=docker --payload={}", "type: 'docker' is not known; allowed are shell, noop"),
        ("submit --type=noop -- x", "a command is for jobs of type shell"),
        ("submit --retries=-1 -- x", "max_retries: -1; 0 to 1000 are allowed"),
        ("submit --retries=1e9 -- x", "--retries"),
        ("submit --retries=99999999999999999999 -- x", "max_retries: 99999999999999999999;"),
        ("submit --priority=10 -- x", "priority: 10 is not allowed"),
        ("submit --priority=-1 -- x", "priority: -1 is not allowed"),
        ("submit --delay=-10s -- x", "--delay"),
        ("submit --delay=10parsecs -- x", "unknown unit 'parsecs'"),
        ("submit --delay=1s --at=2030-01-01T00:00:00Z -- x", "at: "),
        ("submit --at=tomorrow -- x", "'tomorrow' is not a time with its zone"),
        ("submit --at=2030-13-01T00:00:00Z -- x", "is not a time"),
        ("submit --at=9999-01-01T00:00:00Z -- x", "too far ahead"),
        ("submit --timeout=99999d -- x", "timeout"),
        ("submit --backoff-factor=0.5 -- x", "factor: 0.5"),
        ("submit --queue=a\x1bb -- x", "queue: 'a\\x1bb' is not a name"),
        ("submit --tag=a\0b -- x", "tags: 'a\\x00b' holds a control character"),
        ("submit --tag=\udcff -- x", "not valid UTF-8"),
        ("submit -- \udcff", "not valid UTF-8"),
        ("submit --label=a -- x", "key=value"),
        ("submit --env=1=2 -- x", "payload.env"),
        (
            "submit --retries=1 --retry-on=3,segfault -- x",
            "retry.on: 'segfault' is not known; allowed",
        ),
        ("submit --retries=1 --retry-never=20-10 -- x", "retry.never: '20-10' runs backwards"),
        ("submit --retries=1 --retry-on= -- x", "retry.on: '' is not known"),
        ("submit --retry-on=timeout -- x", "--retry-on and --retry-never choose among --retries"),
        ("submit --backoff-jitter=some -- x", "jitter: 'some' is not known; allowed are full, equal, none"),
        ("submit --nice=20 -- x", "payload.nice: 20 is not allowed"),
        ("submit --run-as=A -- x", "payload.run_as: 'A' is not allowed"),
        ("submit --limit=files=1 -- x", "limit: 'files' is not known; allowed are open_files"),
        ("submit --limit=memory_bytes=1GB -- x", "limit: '1GB' has the unknown unit 'GB'"),
        ("submit --limit=processes=0 -- x", "payload.limits.processes: 0 is not allowed"),
        ('submit --nice=0 --payload={"command":"x"}', "--payload holds all of the job"),
        ('submit --allow-background --payload={"command":"x"}', "--payload holds all of the job"),
        ("--server=nonsense list", "GRPC_ADDR='nonsense' (the command line) is not allowed"),
        ("workflow trigger", "Missing argument 'NAME'"),
        ("workflow runs --status=paused", "allowed are running, completed, failed, cancelled"),
    ],
)
def test_bad_input(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    # given a server that must not be reached: bad input is told without it
    assert run(["--patience=0", "--server=127.0.0.1:1", *line.split(" ")]) == ExitCode.BAD_INPUT
    output = capsys.readouterr()
    assert said in output.err
    assert output.out == ""
    assert "Traceback" not in output.err


@pytest.mark.parametrize("line", ["--json status abc", "status abc --json", "submit --json --payload={}"])
def test_bad_input_as_json(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(line.split(" ")) == ExitCode.BAD_INPUT
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "invalid_input"
    assert error["message"]
    assert error["field"] in {"job_id", "payload"}


def test_json_of_the_command_is_not_ours(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--server=nonsense", "submit", "--", "tool", "--json"]) == ExitCode.BAD_INPUT
    assert capsys.readouterr().out == ""


def test_unreachable_server(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--server=127.0.0.1:1", "--patience=0.1", "--json", "status", "1"]) == ExitCode.UNREACHABLE
    output = capsys.readouterr()
    assert json.loads(output.out)["error"]["code"] == "unavailable"
    assert "127.0.0.1:1 (connection refused); GRPC_ADDR" in output.err


def test_exit_codes_follow_the_tree(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(errors.NotFound("job", 1)) == 3
    assert exit_code(errors.InvalidDefinition("a.yaml", 3, "what")) == 2
    assert exit_code(errors.StorageUnavailable("away")) == 4
    assert exit_code(errors.Refused("no")) == 1
    assert report(errors.Unavailable("Postgres is away"), as_json=False, is_client=False) == 1
    assert set(EXIT_CODES.values()) == {ExitCode.BAD_INPUT, ExitCode.NOT_FOUND, ExitCode.UNREACHABLE}
    capsys.readouterr()


def test_unexpected_errors_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert report_unexpected(KeyError("what\x1b[2J"), as_json=False) == ExitCode.FAILED
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "ORQESTRA_DEBUG=1" in told
    assert "\x1b" not in told


def test_a_reader_that_leaves_is_no_fault() -> None:
    program = [*PYTHON, "-m", "orqestra", "completion", "bash"]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(program, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    assert "_ORQESTRA_COMPLETE" in capsys.readouterr().out


def test_completion_offers_words() -> None:
    environment = {
        **os.environ,
        "_ORQESTRA_COMPLETE": "bash_complete",
        "COMP_WORDS": "orqestra list --status re",
        "COMP_CWORD": "3",
    }
    program = Path(sys.executable).with_name("orqestra")
    command = [str(program)] if program.exists() else [*PYTHON, "-m", "orqestra"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["plain,retrying"]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["version"]) == 0
    assert run(["--version"]) == 0
    words = capsys.readouterr().out.split("\n")
    assert words[0] == words[1]
