"""Repairs: counts how often a healing path had to act. Without a fault all stay 0, except the audit's."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class Repair(StrEnum):
    """What was repaired. The values are the label `repair` of the metric; docs/metrics.md explains each."""

    LEASE_OVER = "lease_over"
    LEASE_STORM = "lease_storm"
    JOB_LOST = "job_lost"
    JOB_RETURNED = "job_returned"
    WORKER_STUCK = "worker_stuck"
    NOT_HELD = "not_held"
    NOT_OURS = "not_ours"
    TAKE_FORGOTTEN = "take_forgotten"
    HINT_MISSING = "hint_missing"
    REDIS_REBUILT = "redis_rebuilt"
    OUTBOX_OF_OTHERS = "outbox_of_others"
    SUBMIT_UNKNOWN = "submit_unknown"
    CLAIM_UNKNOWN = "claim_unknown"
    SETTLE_UNKNOWN = "settle_unknown"
    CANCEL_UNKNOWN = "cancel_unknown"
    RESULT_REJECTED = "result_rejected"
    CANCEL_TOLD_LATE = "cancel_told_late"


class Repairs:
    """The counts of one server since its start."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {repair: 0 for repair in Repair}

    @property
    def counts(self) -> Mapping[str, int]:
        """How often each was necessary; every kind is there."""
        return MappingProxyType(self._counts)

    def count(self, repair: Repair, times: int = 1) -> None:
        """Note that something was repaired, so many times; 0 is nothing."""
        self._counts[repair] += times
