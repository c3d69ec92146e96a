"""The generated code of `proto/` is committed; here it is that which the `.proto` files give."""

from pathlib import Path

from tools.proto import generate

ROOT = Path(__file__).resolve().parents[2]
GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py")


def test_the_generated_code_is_current(tmp_path: Path) -> None:
    generate(tmp_path)

    fresh, committed = contents(tmp_path), contents(ROOT / "python")
    assert sorted(fresh) == sorted(committed)
    stale = [name for name, text in fresh.items() if committed[name] != text]
    assert stale == [], "run `make proto`"


def contents(folder: Path) -> dict[str, str]:
    paths = (path for pattern in GENERATED for path in folder.glob(f"orqestra/v1/{pattern}"))
    return {path.name: path.read_text() for path in paths}
