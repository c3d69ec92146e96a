"""The wheel in an empty environment, far from the repository: what a user gets who types `pip install`."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.support.dev import Program, running_dev
from tests.support.processes import processes_of

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "python" / "orqestra"
# Building is quick after `make setup`, whose target folder it shares; cold, it is not.
BUILD_SECONDS = 600
INSTALL_SECONDS = 300
STOP_SECONDS = 10.0
COMMAND_SECONDS = 30
FIRST_READY_SECONDS = 15.0
EXAMPLES = ["backup", "hello", "report", "retry"]

pytestmark = pytest.mark.timeout(BUILD_SECONDS + INSTALL_SECONDS)


@dataclass(frozen=True, kw_only=True)
class Installed:
    """An environment with the wheel in it, and nothing else but what that needs."""

    wheel: Path
    folder: Path
    program: Program

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run `orqestra` to its end, in an empty folder."""
        return subprocess.run(
            [*self.program.words, *arguments],
            cwd=self.folder,
            env={**self.program.environment, **variables},
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )


@pytest.fixture(scope="module")
def installed() -> Iterator[Installed]:
    with tempfile.TemporaryDirectory(prefix="orqestra-wheel-") as directory:
        folder = Path(directory)
        wheel = _build(folder / "dist")
        scripts = folder / "venv" / "bin"
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True, timeout=INSTALL_SECONDS)
        subprocess.run(
            [
                *(scripts / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
                *("--constraint", ROOT / "constraints.txt", f"{wheel}[embedded]"),
            ],
            cwd=folder,
            env={name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
            check=True,
            timeout=INSTALL_SECONDS,
        )
        (folder / "home").mkdir()
        environment = {"PATH": f"{scripts}:/usr/bin:/bin", "HOME": str(folder / "home")}
        program = Program(words=(str(scripts / "orqestra"),), environment=environment)
        yield Installed(wheel=wheel, folder=folder / "home", program=program)


def test_the_wheel_holds_all_that_the_package_has(installed: Installed) -> None:
    with ZipFile(installed.wheel) as archive:
        packed = {name.removeprefix("orqestra/") for name in archive.namelist() if name.startswith("orqestra/")}

    there = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == there
    assert {Path(name).suffix for name in packed} == {".py", ".pyi", ".so", ".sql", ".lua", ".yaml", ".typed"}
    assert {"migrations/000001_jobs.up.sql", "workflows/hello.yaml", "_dispatch.pyi", "py.typed"} <= packed
    assert [name for name in packed if name.endswith(".so")] == ["_dispatch.abi3.so"]
    assert "-cp311-abi3-" in installed.wheel.name


def test_it_runs_outside_the_repository(installed: Installed) -> None:
    done = installed.run("--help")

    assert (done.returncode, done.stderr) == (0, "")
    assert "submit" in done.stdout
    python = installed.program.words[0].replace("bin/orqestra", "bin/python")
    where = subprocess.run(
        [python, "-c", "import orqestra; print(orqestra.__file__)"],
        cwd=installed.folder,
        env=installed.program.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert not Path(where.stdout).is_relative_to(ROOT)


async def test_it_brings_the_migrations(installed: Installed, empty_database: str) -> None:
    first = installed.run("migrate", "up", DB_URL=empty_database)
    version = installed.run("migrate", "version", DB_URL=empty_database)

    assert (first.returncode, first.stderr) == (0, "")
    assert (version.returncode, version.stderr) == (0, "")
    newest = max(path.name.split("_")[0] for path in PACKAGE.glob("migrations/*.up.sql"))
    assert str(int(newest)) in version.stdout


async def test_dev_runs_jobs_and_the_examples(installed: Installed, folder: Path) -> None:
    begin = time.monotonic()
    async with running_dev(folder, program=installed.program) as dev:
        address = await dev.ready()
        assert time.monotonic() - begin < FIRST_READY_SECONDS

        echo = installed.run("submit", "--wait", "--", "echo hello", GRPC_ADDR=address)
        listed = installed.run("workflow", "list", GRPC_ADDR=address)
        hello = installed.run("workflow", "trigger", "hello", "--wait", GRPC_ADDR=address)

        assert (echo.returncode, echo.stdout, echo.stderr) == (0, "hello\n", "")
        assert [name for name in EXAMPLES if name in listed.stdout] == EXAMPLES
        assert (hello.returncode, listed.returncode) == (0, 0)

        dev.send(signal.SIGTERM)
        begin = time.monotonic()
        assert await dev.end() == 0
        assert time.monotonic() - begin < STOP_SECONDS
    assert processes_of(str(folder)) == []


def _build(into: Path) -> Path:
    """Build the wheel as a release is built; return its path."""
    subprocess.run(
        [sys.executable, "-m", "maturin", "build", "--release", "--locked", "--quiet", "--out", into],
        cwd=ROOT,
        check=True,
        timeout=BUILD_SECONDS,
    )
    (wheel,) = into.iterdir()
    return wheel
