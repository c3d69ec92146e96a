"""What survives a restart of a worker, and how workers on one machine keep apart."""

from pathlib import Path

import pytest

from orqestra.model.errors import StartFailed
from orqestra.worker.identity import NUMBER_BLOCK, Identity


def test_the_identity_survives(tmp_path: Path) -> None:
    first = Identity.open(tmp_path)
    first.next_number()
    first.close()

    second = Identity.open(tmp_path)
    second.close()

    assert second.worker_id == first.worker_id
    assert second.directory == first.directory == tmp_path / "worker-0"
    assert second.jobs_directory == tmp_path / "worker-0" / "jobs"
    assert second.directory.stat().st_mode & 0o777 == 0o700


def test_other_users_may_pass_through_if_commands_run_as_them(tmp_path: Path) -> None:
    identity = Identity.open(tmp_path, traversable=True)
    identity.next_number()
    identity.close()

    modes = {path.name: path.stat().st_mode & 0o777 for path in identity.directory.iterdir()}
    assert [path.stat().st_mode & 0o777 for path in (tmp_path, identity.directory)] == [0o711, 0o711]
    assert modes == {"lock": 0o600, "identity": 0o600}


def test_living_workers_have_directories_of_their_own(tmp_path: Path) -> None:
    one, two = Identity.open(tmp_path), Identity.open(tmp_path)
    one.next_number()
    one.close()
    three = Identity.open(tmp_path)

    assert [one.index, two.index, three.index] == [0, 1, 0]
    assert one.worker_id != two.worker_id
    assert three.worker_id == one.worker_id
    two.close()
    three.close()


def test_numbers_only_rise_whenever_the_worker_dies(tmp_path: Path) -> None:
    numbers = []
    for hellos in (1, NUMBER_BLOCK + 1, 3):
        identity = Identity.open(tmp_path)
        numbers += [identity.next_number() for _ in range(hellos)]
        identity.close()

    assert numbers == sorted(set(numbers))
    assert numbers[0] == 1


def test_a_number_that_was_not_stored_is_never_given(tmp_path: Path) -> None:
    identity = Identity.open(tmp_path)
    # Nothing can be written where it writes.
    obstacle = identity.directory / "identity.new"
    obstacle.mkdir()
    for _ in range(2):
        with pytest.raises(OSError, match=r"identity\.new"):
            identity.next_number()
    obstacle.rmdir()
    number = identity.next_number()
    identity.close()

    again = Identity.open(tmp_path)
    assert again.next_number() > number
    again.close()


@pytest.mark.parametrize("content", [b"", b"{", b'{"worker_id": "x", "reserved": 1}', b"\xff"])
def test_a_broken_identity_is_told_and_kept(tmp_path: Path, content: bytes) -> None:
    directory = tmp_path / "worker-0"
    directory.mkdir()
    (directory / "identity").write_bytes(content)

    with pytest.raises(StartFailed, match="worker-0/identity"):
        Identity.open(tmp_path)

    assert (directory / "identity").read_bytes() == content


def test_a_directory_that_cannot_be_used_is_named_with_its_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StartFailed, match="ORQESTRA_STATE_DIR"):
        Identity.open(tmp_path / "file" / "below")
