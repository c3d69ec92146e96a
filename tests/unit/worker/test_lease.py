"""How long a worker may believe that its jobs are its own."""

import pytest

from orqestra.worker.lease import Lease


def test_the_lease_counts_from_the_hello() -> None:
    lease = Lease(10.0, hello_sent_at=100.0, now=102.0)

    assert lease.beat_seconds == 2.5
    assert lease.allows_start(108.9)
    assert not lease.allows_start(109.0)


def test_a_covered_beat_counts_from_when_it_was_sent() -> None:
    lease = Lease(10.0, hello_sent_at=100.0, now=100.0)
    lease.sent(1, 105.0)

    assert lease.covered(1, 108.0)
    assert lease.allows_start(113.9)
    assert not lease.allows_start(114.0)


def test_only_news_keep_the_stream() -> None:
    lease = Lease(10.0, hello_sent_at=100.0, now=101.0)
    assert lease.seconds_until_silent(101.0) == 5.0
    lease.sent(1, 102.0)
    lease.sent(2, 104.0)

    assert lease.covered(2, 105.0)
    assert not lease.covered(1, 106.0)
    assert not lease.covered(2, 106.0)
    assert not lease.covered(9, 106.0)
    assert lease.seconds_until_silent(106.0) == 4.0
    assert lease.seconds_until_silent(111.0) == 0.0


@pytest.mark.parametrize(("lease_seconds", "patience_seconds"), [(1.2, 0.8), (3.0, 2.0), (4.0, 2.0), (15.0, 7.5)])
def test_a_short_lease_waits_for_a_second_renewal_and_leaves_time_to_go_elsewhere(
    lease_seconds: float, patience_seconds: float
) -> None:
    lease = Lease(lease_seconds, hello_sent_at=0.0, now=0.0)

    assert lease.seconds_until_silent(0.0) == pytest.approx(patience_seconds)


def test_an_answer_that_was_read_late_renews_nothing() -> None:
    lease = Lease(10.0, hello_sent_at=100.0, now=100.0)
    lease.sent(1, 102.0)

    lease.covered(1, 160.0)

    assert not lease.allows_start(160.0)
