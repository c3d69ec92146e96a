"""The pause between two attempts to reach the server."""

from hypothesis import given
from hypothesis import strategies as st

from orqestra.worker.connection import PAUSES_SECONDS, pause_seconds


@given(failures=st.integers(0, 10**9))
def test_pauses_are_spread_and_bounded(failures: int) -> None:
    longest = PAUSES_SECONDS[min(failures, len(PAUSES_SECONDS) - 1)]

    assert 0 <= pause_seconds(failures) <= longest <= 1.5


def test_the_server_can_ask_for_more() -> None:
    assert 2.0 <= pause_seconds(0, retry_after_ms=2000) <= 2.25
