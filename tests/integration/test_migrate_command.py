"""`orqestra migrate`: what it prints and the codes it exits with."""

import json
from pathlib import Path

import pytest

from orqestra.cli.entry import run
from orqestra.store import migrations

NEWEST = len(migrations.load())


@pytest.fixture
def database_url(empty_database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DB_URL", empty_database)
    return empty_database


def document(capsys: pytest.CaptureFixture[str]) -> object:
    return json.loads(capsys.readouterr().out)


@pytest.mark.usefixtures("database_url")
def test_up_version_and_down_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["migrate", "version"]) == 0
    assert run(["migrate", "up"]) == 0
    assert run(["migrate", "up"]) == 0
    assert run(["migrate", "version"]) == 0
    assert run(["migrate", "down", "--steps", "99"]) == 0
    assert run(["migrate", "down"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "0"
    assert lines[1] == "applied 000001_jobs"
    assert f"nothing to do: the schema is at version {NEWEST}" in lines
    assert str(NEWEST) in lines
    assert lines[-2:] == ["undid 000001_jobs", "nothing to do: the database has no schema"]


@pytest.mark.usefixtures("database_url")
def test_up_version_and_down_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    stems = [each.stem for each in migrations.load()]

    assert run(["migrate", "up", "--json"]) == 0
    assert document(capsys) == {"version": NEWEST, "applied": stems}
    assert run(["--json", "migrate", "version"]) == 0
    assert document(capsys) == {"version": NEWEST, "known": NEWEST}
    assert run(["migrate", "down", "--json"]) == 0
    assert document(capsys) == {"version": NEWEST - 1, "undone": stems[-1:]}


@pytest.mark.usefixtures("database_url")
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["up", "--to", "99"], "to: 99 is not a version"),
        (["up", "--to", "x"], "'x' is not a valid integer"),
        (["down", "--steps", "0"], "steps: 0 is not a number of migrations"),
        (["create", "Bad-Name"], "name: 'Bad-Name' is not allowed"),
        (["create", "fine", "--directory", "/no/where"], "there is no directory /no/where"),
        (["sideways"], "No such command 'sideways'"),
    ],
)
def test_bad_input_is_named(capsys: pytest.CaptureFixture[str], arguments: list[str], told: str) -> None:
    assert run(["migrate", *arguments]) == 2

    assert told in capsys.readouterr().err


@pytest.mark.parametrize("command", ["up", "down", "version"])
def test_a_database_that_is_away_is_4_with_address_and_setting(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("DB_URL", "postgresql://someone:secret@127.0.0.1:1/away")

    assert run(["migrate", command]) == 4

    told = capsys.readouterr().err
    assert "127.0.0.1:1/away (DB_URL)" in told
    assert "secret" not in told


def test_create_makes_files_where_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["migrate", "create", "colours", "--directory", str(tmp_path)]) == 0

    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}/000001_colours.up.sql",
        f"{tmp_path}/000001_colours.down.sql",
    ]
    assert len(list(tmp_path.iterdir())) == 2
