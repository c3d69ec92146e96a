"""Which jobs or runs a list shall show."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from orqestra.client.decode import RUN_STATUSES, STATUSES
from orqestra.model import limits
from orqestra.model.errors import InvalidInput
from orqestra.model.lifecycle import RunState, State
from orqestra.v1 import jobs_pb2, workflows_pb2

# Ids are bigints of Postgres; a message can carry no more.
ID_MAX: Final = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class JobFilter:
    """Jobs in any of the statuses that require all of the labels and bear all of the tags. Empty: all."""

    statuses: tuple[State, ...] = ()
    queue: str = ""
    type: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()

    def request(self, *, limit: int | None, after: int | None) -> jobs_pb2.ListJobsRequest:
        """Return the message; raises InvalidInput for what none can carry."""
        try:
            return jobs_pb2.ListJobsRequest(
                statuses=[STATUSES[state] for state in self.statuses],
                queue=self.queue,
                type=self.type,
                labels=self.labels,
                tags=self.tags,
                limit=checked_limit(limit),
                after=checked_cursor(after),
            )
        except UnicodeEncodeError as error:
            raise InvalidInput("filter", f"{error.object!r} is not valid UTF-8") from None


@dataclass(frozen=True, kw_only=True)
class RunFilter:
    """Runs of the workflow in any of the statuses. Empty: all."""

    workflow: str = ""
    statuses: tuple[RunState, ...] = ()

    def request(self, *, limit: int | None, after: int | None) -> workflows_pb2.ListRunsRequest:
        """Return the message; raises InvalidInput for what none can carry."""
        try:
            return workflows_pb2.ListRunsRequest(
                workflow=self.workflow,
                statuses=[RUN_STATUSES[state] for state in self.statuses],
                limit=checked_limit(limit),
                after=checked_cursor(after),
            )
        except UnicodeEncodeError as error:
            raise InvalidInput("filter", f"{error.object!r} is not valid UTF-8") from None


def checked_limit(limit: int | None) -> int:
    """Return what the message holds for a limit: 0 is the server's default."""
    if limit is None:
        return 0
    if not 1 <= limit <= limits.PAGE_JOBS:
        raise InvalidInput("limit", f"{limit}; 1 to {limits.PAGE_JOBS} are allowed")
    return limit


def checked_cursor(after: int | None) -> int:
    """Return what the message holds for a cursor: 0 is the first page."""
    return 0 if after is None else checked_id("after", after)


def checked_id(field_name: str, value: int) -> int:
    """Return `value` if it can be the id of anything: ids are bigints that count from 1."""
    if not 1 <= value <= ID_MAX:
        raise InvalidInput(field_name, f"{value} can't be an id; ids are whole numbers from 1 on")
    return value
