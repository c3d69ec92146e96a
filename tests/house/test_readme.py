"""What README.md tells people to type exists: every verb of make, every `orqestra ...` with its options."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest

from orqestra.cli.entry import orqestra

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
SECONDS = 30
SETTINGS = re.compile(r"[A-Z_]+=")


def typed() -> list[list[str]]:
    """Return the words of every line that is typed in a console block, without settings before them."""
    blocks = re.findall(r"^```console\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    lines = [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    commands = [shlex.split(line, comments=True) for line in lines]
    return [words[_first(words) :] for words in commands]


def commands_of(program: str) -> list[list[str]]:
    """Return what is typed after `program`, as many times as it is."""
    return [words[1:] for words in typed() if words and Path(words[0]).name == program]


def parse(group: click.Group, words: list[str]) -> None:
    """Parse a command line from its first command on; raises click.UsageError for what is not known."""
    with click.Context(group) as context:
        name, command, rest = group.resolve_command(context, words)
        assert command is not None
        if isinstance(command, click.Group):
            parse(command, rest)
        else:
            command.make_context(name, rest, parent=context).close()


def _first(words: list[str]) -> int:
    return next((at for at, word in enumerate(words) if not SETTINGS.match(word)), len(words))


def test_there_is_something_to_type() -> None:
    assert len(commands_of("orqestra")) > 10
    assert ["demo"] in commands_of("make")
    assert {words[0] for words in typed() if words} <= {"orqestra", ".venv/bin/orqestra", "make", "export"}


@pytest.mark.parametrize("words", commands_of("orqestra"), ids=" ".join)
def test_a_command_and_its_options_exist(words: list[str]) -> None:
    parse(orqestra, words)


@pytest.mark.parametrize("words", [["does-not-exist"], ["submit", "--colour=red", "--", "true"], ["status"]])
def test_a_command_that_does_not_exist_would_be_noticed(words: list[str]) -> None:
    with pytest.raises(click.UsageError):
        parse(orqestra, words)


@pytest.mark.parametrize("words", commands_of("make"), ids=" ".join)
def test_a_verb_of_make_exists(words: list[str]) -> None:
    # Not as a part of the make that may run this test.
    environ = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    make = ["make", "--dry-run", *words]
    done = subprocess.run(make, cwd=ROOT, env=environ, capture_output=True, check=False, timeout=SECONDS)

    assert done.returncode == 0, done.stderr
