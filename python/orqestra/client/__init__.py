"""The client library: what programs and the command line use to talk to a server.

Start with `client` (every call and its promise). A call goes through `encode`, `patience` (when it is
made again) and `failures` (what a gRPC status means); its answer through `decode` to `values`.
`intake` joins submits that wait together, which `submit_line` carries on one stream that lasts;
`submit_stream` and `following` keep streams of their callers going.
"""

from orqestra.client.client import Client
from orqestra.client.encode import new_key, shell_payload
from orqestra.client.patience import Patience
from orqestra.client.selection import JobFilter, RunFilter
from orqestra.client.sync import SyncClient
from orqestra.client.values import (
    Attempt,
    Backoff,
    BrokenFile,
    Cancelled,
    CancelOutcome,
    Chunk,
    Job,
    JobPage,
    Output,
    OutputStream,
    Receipt,
    Run,
    RunPage,
    RunStep,
    Worker,
    Workflow,
    WorkflowList,
)
from orqestra.model.job import JobSpec, JobType, label_list
from orqestra.model.payload import ResourceLimits
from orqestra.model.retry import RetryPolicy
from orqestra.model.retry_rules import Jitter

__all__ = [
    "Attempt",
    "Backoff",
    "BrokenFile",
    "CancelOutcome",
    "Cancelled",
    "Chunk",
    "Client",
    "Jitter",
    "Job",
    "JobFilter",
    "JobPage",
    "JobSpec",
    "JobType",
    "Output",
    "OutputStream",
    "Patience",
    "Receipt",
    "ResourceLimits",
    "RetryPolicy",
    "Run",
    "RunFilter",
    "RunPage",
    "RunStep",
    "SyncClient",
    "Worker",
    "Workflow",
    "WorkflowList",
    "label_list",
    "new_key",
    "shell_payload",
]
