"""gRPC passes over an option that it does not know, so that a misspelt one would do nothing."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from orqestra.client.client import OPTIONS as CLIENT
from orqestra.rpc.server import OPTIONS as SERVER
from orqestra.worker.connection import OPTIONS as WORKER


@pytest.fixture(scope="module")
def library() -> bytes:
    found = find_spec("grpc._cython.cygrpc")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).read_bytes()


@pytest.mark.parametrize("option", sorted({name for name, _ in (*CLIENT, *SERVER, *WORKER)}))
def test_grpc_knows_every_option_that_we_set(option: str, library: bytes) -> None:
    assert option.encode() + b"\0" in library
