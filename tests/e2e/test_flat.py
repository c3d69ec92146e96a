"""`python -m benchmarks.flat`, each case in small: it comes to an end and writes its figures."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.flat.cases import CASES

ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "jobs": 300,
    "rounds": 1,
    "finished-rows": 2000,
    "hold-minutes": 0.01,
    "waiting": 600,
    "few-waiting": 200,
    "old-rows": 2000,
}


@pytest.mark.parametrize("case", CASES)
def test_a_case_is_measured_and_written(case: str, tmp_path: Path) -> None:
    out = tmp_path / "flat.json"
    options = [f"--{name}={number}" for name, number in SMALL.items()]

    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.flat", case, *options, "--out", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    # So small a load says nothing: it may hold or not.
    assert ended.returncode in {0, 1} and ended.stderr == "", ended.stderr
    assert ended.stdout.startswith(f"{case}: ")
    document = json.loads(out.read_text())
    [found] = document["cases"]
    assert found["case"] == case
    assert found["holds"] is (ended.returncode == 0)
    assert all(each["jobs_per_s"] > 0 for each in found["rounds"])
    assert document["options"]["old_rows"] == SMALL["old-rows"]
