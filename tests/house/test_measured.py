"""Every script in Redis has a benchmark of its name."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "python" / "orqestra" / "queue" / "lua"
BENCHMARKS = ROOT / "benchmarks" / "test_hints.py"


def test_every_script_is_measured() -> None:
    functions = {node.name for node in ast.parse(BENCHMARKS.read_text()).body if isinstance(node, ast.FunctionDef)}

    assert {f"test_{script.stem}" for script in SCRIPTS.glob("*.lua")} <= functions
