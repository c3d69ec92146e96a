"""Which role each RPC needs, in one table. All are granted for now; tokens come later.

A server does not start with an RPC that is not in it.
"""

from enum import StrEnum
from typing import Final


class Role(StrEnum):
    """Who may call."""

    READ = "read"
    SUBMIT = "submit"
    OPERATE = "operate"
    WORKER = "worker"


ROLES: Final[dict[str, Role]] = {
    "/orqestra.v1.Jobs/Submit": Role.SUBMIT,
    "/orqestra.v1.Jobs/SubmitBatch": Role.SUBMIT,
    "/orqestra.v1.Jobs/SubmitStream": Role.SUBMIT,
    "/orqestra.v1.Jobs/GetJob": Role.READ,
    "/orqestra.v1.Jobs/ListJobs": Role.READ,
    "/orqestra.v1.Jobs/CancelJob": Role.OPERATE,
    "/orqestra.v1.Jobs/RetryJob": Role.OPERATE,
    "/orqestra.v1.Jobs/WatchJob": Role.READ,
    "/orqestra.v1.Jobs/GetOutput": Role.READ,
    "/orqestra.v1.Jobs/ListWorkers": Role.READ,
    "/orqestra.v1.Workflows/ListWorkflows": Role.READ,
    "/orqestra.v1.Workflows/TriggerWorkflow": Role.SUBMIT,
    "/orqestra.v1.Workflows/GetRun": Role.READ,
    "/orqestra.v1.Workflows/ListRuns": Role.READ,
    "/orqestra.v1.Workflows/CancelRun": Role.OPERATE,
    "/orqestra.v1.WorkerService/Work": Role.WORKER,
    "/orqestra.v1.WorkerService/Logs": Role.WORKER,
}
