"""A catalog offers what the files of its directory say now, and tells which of them are broken."""

import errno
import os
import threading
from pathlib import Path

import pytest

from orqestra.engine.catalog import REFRESH_SECONDS, BrokenFile, Catalog
from orqestra.model.errors import InvalidDefinition, NotFound
from tests.support.clock import ManualClock


def workflow(name: str, command: str = "true") -> str:
    return f"name: {name}\nsteps:\n  - command: '{command}'\n"


def command(catalog: Catalog, name: str) -> str | None:
    return catalog.get(name).steps[0].shell.command


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def catalog(tmp_path: Path, clock: ManualClock) -> Catalog:
    return Catalog(tmp_path, clock)


def test_both_endings_are_read_and_nothing_else(tmp_path: Path, catalog: Catalog) -> None:
    for file in ("b.yaml", "a.yml", ".hidden.yaml", "notes.txt", "c.yaml~"):
        (tmp_path / file).write_text(workflow(f"from-{file[0]}"))
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "d.yaml").write_text(workflow("from-d"))

    listing = catalog.load()

    assert {name: found.file for name, found in listing.workflows.items()} == {
        "from-a": "a.yml",
        "from-b": "b.yaml",
    }
    assert listing.broken == ()
    assert catalog.listing is listing


def test_a_broken_file_never_stops_the_rest(tmp_path: Path, catalog: Catalog) -> None:
    (tmp_path / "a.yaml").write_text("name: broken\nsteps:\n  - comand: x\n")
    (tmp_path / "b.yaml").write_text(workflow("good"))

    listing = catalog.load()

    assert list(listing.workflows) == ["good"]
    assert listing.broken == (
        BrokenFile(
            file="a.yaml",
            line=3,
            problem="unknown key 'comand' in step 1; did you mean command?",
            name="broken",
        ),
    )


@pytest.mark.parametrize("name", ["broken", "a"])
def test_a_broken_workflow_is_not_merely_missing(tmp_path: Path, catalog: Catalog, name: str) -> None:
    (tmp_path / "a.yaml").write_text("name: broken\nsteps:\n\t- x\n")

    with pytest.raises(InvalidDefinition, match=r"a\.yaml:3: is not YAML: a tab"):
        catalog.get(name)


def test_an_unknown_workflow_is_not_found(tmp_path: Path, catalog: Catalog) -> None:
    (tmp_path / "a.yaml").write_text(workflow("known"))

    with pytest.raises(NotFound, match="no workflow unknown"):
        catalog.get("unknown")


def test_of_two_files_with_one_name_the_first_counts(tmp_path: Path, catalog: Catalog) -> None:
    (tmp_path / "b.yaml").write_text(workflow("same", "second"))
    (tmp_path / "a.yaml").write_text(workflow("same", "first"))

    assert command(catalog, "same") == "first"
    assert catalog.listing.broken == (
        BrokenFile(file="b.yaml", line=1, problem="the workflow name same is taken by a.yaml"),
    )


async def test_an_edited_file_is_picked_up(tmp_path: Path, catalog: Catalog, clock: ManualClock) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(workflow("a", "one"))
    assert command(catalog, "a") == "one"

    file.write_text(workflow("a", "two"))
    assert command(catalog, "a") == "one", "looked at again within the second"
    await clock.advance(REFRESH_SECONDS)

    assert command(catalog, "a") == "two"


async def test_files_that_come_and_go_are_noticed(tmp_path: Path, catalog: Catalog, clock: ManualClock) -> None:
    (tmp_path / "a.yaml").write_text(workflow("a"))
    assert list(catalog.refresh().workflows) == ["a"]

    (tmp_path / "b.yaml").write_text(workflow("b"))
    (tmp_path / "a.yaml").unlink()
    await clock.advance(REFRESH_SECONDS)

    assert list(catalog.refresh().workflows) == ["b"]


async def test_a_file_put_in_place_by_rename_is_noticed(tmp_path: Path, catalog: Catalog, clock: ManualClock) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(workflow("a", "one"))
    assert command(catalog, "a") == "one"

    fresh = tmp_path / "a.yaml.new"
    fresh.write_text(workflow("a", "two"))
    os.utime(fresh, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    fresh.rename(file)
    await clock.advance(REFRESH_SECONDS)

    assert command(catalog, "a") == "two"


async def test_a_file_that_breaks_offers_nothing_until_mended(
    tmp_path: Path, catalog: Catalog, clock: ManualClock
) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(workflow("a"))
    assert command(catalog, "a") == "true"

    file.write_text("name: a\nsteps: []\n")
    await clock.advance(REFRESH_SECONDS)
    with pytest.raises(InvalidDefinition, match=r"a\.yaml:2: steps: 0 steps"):
        catalog.get("a")

    file.write_text(workflow("a", "again"))
    await clock.advance(REFRESH_SECONDS)
    assert command(catalog, "a") == "again"


async def test_unchanged_files_are_not_read_again(tmp_path: Path, catalog: Catalog, clock: ManualClock) -> None:
    (tmp_path / "a.yaml").write_text(workflow("a"))
    first = catalog.get("a")
    await clock.advance(REFRESH_SECONDS)

    assert catalog.get("a") is first
    catalog.load()
    assert catalog.get("a") is not first
    assert catalog.get("a") == first


async def test_a_missing_directory_is_reported_and_looked_for(tmp_path: Path, clock: ManualClock) -> None:
    directory = tmp_path / "later"
    catalog = Catalog(directory, clock)

    (broken,) = catalog.load().broken
    assert (broken.file, broken.line) == (str(directory), 0)
    assert broken.problem.startswith("cannot be read: No such file or directory; WORKFLOWS_DIR names")
    with pytest.raises(NotFound):
        catalog.get("a")

    directory.mkdir()
    (directory / "a.yaml").write_text(workflow("a"))
    await clock.advance(REFRESH_SECONDS)
    assert command(catalog, "a") == "true"
    assert catalog.listing.broken == ()


def test_a_directory_that_is_a_file_is_reported(tmp_path: Path, clock: ManualClock) -> None:
    (tmp_path / "file").write_text("")

    (broken,) = Catalog(tmp_path / "file", clock).load().broken

    assert "cannot be read: Not a directory" in broken.problem


def test_a_link_within_the_directory_is_followed(tmp_path: Path, catalog: Catalog) -> None:
    (tmp_path / "version-1").mkdir()
    (tmp_path / "version-1" / "a.yaml").write_text(workflow("a"))
    (tmp_path / "a.yaml").symlink_to("version-1/a.yaml")

    assert command(catalog, "a") == "true"


def test_a_linked_directory_is_followed(tmp_path: Path, clock: ManualClock) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.yaml").write_text(workflow("a"))
    (tmp_path / "link").symlink_to("real")

    assert command(Catalog(tmp_path / "link", clock), "a") == "true"


def _link_out(path: Path) -> None:
    outside = path.parent.parent / "outside.yaml"
    outside.write_text(workflow("outside"))
    path.symlink_to(outside)


def _link_to_nothing(path: Path) -> None:
    path.symlink_to("nothing.yaml")


def _link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (Path.mkdir, "cannot be read: it is a directory"),
        (os.mkfifo, "cannot be read: it is not a regular file"),
        (_link_out, "cannot be read: it is a link to a place outside of the directory"),
        (_link_to_nothing, "cannot be read: No such file or directory"),
        (_link_to_itself, "cannot be read: Too many levels of symbolic links"),
        (Path.touch, "is empty; a mapping with name and steps is needed"),
    ],
)
def test_what_is_no_file_is_reported(tmp_path: Path, clock: ManualClock, make: object, problem: str) -> None:
    directory = tmp_path / "workflows"
    directory.mkdir()
    (directory / "good.yaml").write_text(workflow("good"))
    assert callable(make)
    make(directory / "x.yaml")

    listing = Catalog(directory, clock).load()

    assert list(listing.workflows) == ["good"]
    assert [(broken.file, broken.line, broken.problem) for broken in listing.broken] == [("x.yaml", 0, problem)]


def test_a_file_that_may_not_be_read_is_reported(
    tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.yaml").write_text(workflow("a"))

    def refuse(_path: Path, _flags: int) -> int:
        # What the kernel answers to everyone but root, who may run these tests.
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", refuse)

    assert catalog.load().broken == (BrokenFile(file="a.yaml", line=0, problem="cannot be read: Permission denied"),)


def test_a_file_name_that_is_no_text_can_be_shown(tmp_path: Path, catalog: Catalog) -> None:
    (tmp_path / os.fsdecode(b"\xff.yaml")).write_text(workflow("a"))
    (tmp_path / os.fsdecode(b"\xfe.yaml")).write_text("")

    listing = catalog.load()

    assert listing.workflows["a"].file == "\ufffd.yaml"
    assert listing.broken[0].file == "\ufffd.yaml"


def test_a_catalog_may_be_asked_by_many_at_once(tmp_path: Path, catalog: Catalog) -> None:
    for number in range(50):
        (tmp_path / f"{number}.yaml").write_text(workflow(f"w{number}"))
    found: list[int] = []

    def ask() -> None:
        catalog.load()
        found.append(len(catalog.refresh().workflows))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [50] * 8
