"""Generate the Python code of `proto/`: messages, their types and the gRPC stubs.

`python tools/proto.py [FOLDER]` writes into `python/`, where the code is committed, or into FOLDER.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def generate(into: Path) -> None:
    """Write `orqestra/v1/*_pb2.py`, `*_pb2.pyi` and `*_pb2_grpc.py` below the folder `into`."""
    proto = ROOT / "proto"
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={proto}"),
            *(f"--python_out={into}", f"--pyi_out={into}", f"--grpc_python_out={into}"),
            *sorted(str(path) for path in proto.rglob("*.proto")),
        ],
        check=True,
    )


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "python")
