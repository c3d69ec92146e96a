"""Submitted jobs, one by one again."""

from dataclasses import replace

from orqestra.model.job import JobSpec
from orqestra.model.submission import Submission


def jobs_of(submission: Submission) -> list[JobSpec]:
    """Return each job with all that it has."""
    keys = submission.keys or [None] * len(submission)
    return [
        replace(submission.kinds[kind], payload=payload, key=key)
        for kind, payload, key in zip(submission.kind_of, submission.payloads, keys, strict=True)
    ]
