"""The verbs are there, each with its line of help, and CI runs what `make check` runs."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
CI = ROOT / ".ci" / "run"
VERBS = (
    "demo",
    "test",
    "setup",
    "lint",
    "check",
    "test-unit",
    "test-integration",
    "test-e2e",
    "test-property",
    "test-chaos",
    "chaos",
    "chaos-soak",
    "bench",
    "bench-full",
    "bench-peers",
    "bars",
    "proto",
    "server",
    "worker",
    "dev-server",
    "dev-worker",
    "migrate-up",
    "migrate-down",
    "migrate-version",
    "migrate-create",
    "docker-up",
    "docker-logs",
    "docker-ps",
    "docker-down",
    "clean",
    "help",
)
SECONDS = 30


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make as if all were set up, and not as a part of the make that may run these tests."""
    environ = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        ["make", "--no-print-directory", "--old-file=.venv/.ready", *arguments],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def printed(*arguments: str) -> list[str]:
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def planned(verb: str) -> list[str]:
    """Return the commands that the verb would run."""
    return printed("--dry-run", verb, "NAME=x")


def targets() -> list[str]:
    return re.findall(r"^([a-z0-9-]+):", MAKEFILE, re.MULTILINE)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_its_line_of_help(verb: str) -> None:
    lines = [line for line in printed("help") if line.split()[0] == verb]

    assert len(lines) == 1
    assert len(lines[0].split()) > 3


def test_the_verbs_are_all_phony() -> None:
    (phony,) = re.findall(r"^\.PHONY: ((?:.*\\\n)*.*)$", MAKEFILE, re.MULTILINE)

    assert sorted(phony.replace("\\\n", " ").split()) == sorted(targets())
    assert set(VERBS) <= set(targets())


def test_check_is_lint_and_test() -> None:
    assert planned("check") == [*planned("lint"), *planned("test")]


def test_ci_runs_lint_and_test_and_nothing_else() -> None:
    lines = CI.read_text().splitlines()

    assert os.access(CI, os.X_OK)
    assert "set -euo pipefail" in lines
    assert [line for line in lines if line.startswith("make ")] == ["make lint", "make test"]


def test_lint_runs_every_tool() -> None:
    commands = "\n".join(planned("lint"))

    for tool in (
        "ruff check",
        "ruff format --check",
        "mypy",
        "lint-imports",
        "mypy.stubtest --concise orqestra._dispatch",
        "cargo fmt --check",
        "--all-targets -- -D warnings",
        "--all-targets --features python -- -D warnings",
    ):
        assert tool in commands


def test_the_tests_of_every_tier_are_run() -> None:
    others = " --ignore=tests/chaos"
    chaos, alone, beside = (line.split("-m pytest", 1)[1] for line in planned("test")[-3:])
    assert chaos == " tests/chaos"
    assert alone == f"{others} -m alone"
    assert re.fullmatch(rf"( --\w+ \w+)*{others} -m 'not alone'", beside)
    tiers = {path.name for path in (ROOT / "tests").iterdir() if list(path.glob("test_*.py"))}
    own = {
        tier for verb in VERBS if verb.startswith("test-") for tier in re.findall(r"tests/(\w+)", str(planned(verb)))
    }
    assert tiers <= own


@pytest.mark.parametrize("verb", ["demo", "proto", "docs", "docker-up", "server", "worker"])
def test_what_a_verb_runs_exists(verb: str) -> None:
    scripts = re.findall(r"tools/\w+\.py", "\n".join(planned(verb)))

    assert all((ROOT / script).is_file() for script in scripts)


@pytest.mark.parametrize(("verb", "is_full"), [("bench", False), ("bench-full", True)])
def test_what_is_measured_is_kept_compared_and_shown(verb: str, is_full: bool) -> None:
    commands = planned(verb)

    assert any(" --full" in command for command in commands) is is_full
    tools = [command.split("tools.")[1].split()[0] for command in commands if "-m tools." in command]
    assert tools == ["benchmark_results", "benchmark_compare", "benchmark_tables"]


def test_a_migration_needs_a_name() -> None:
    done = run("migrate-create")

    assert done.returncode != 0
    assert "NAME=add_something" in done.stdout


def test_no_package_index_is_named() -> None:
    for name in ("Makefile", "Dockerfile", "constraints.txt", ".ci/run", "pyproject.toml"):
        text = (ROOT / name).read_text()
        assert not re.search(r"index-url|trusted-host|find-links|pip\.conf", text), name


def test_constraints_are_versions_without_addresses() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]

    assert pins
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", pin) for pin in pins)
