"""What is submitted, from bytes to checked jobs: what many have in common is looked at once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from orqestra._dispatch import Jobs, wire
from orqestra.model import limits
from orqestra.model.errors import InvalidInput
from orqestra.model.job import JobSpec, check_text, check_type_and_payload
from orqestra.model.submission import Submission
from orqestra.rpc.decode import job_kind
from orqestra.rpc.undecodable import undecodable
from orqestra.v1 import jobs_pb2

NO_PAYLOAD: Final = b"{}"
# How many shapes of jobs are remembered, at most the jobs of a batch more; each takes about a kilobyte.
KINDS_KNOWN: Final = 1000

Submit = jobs_pb2.SubmitRequest | jobs_pb2.SubmitBatchRequest | jobs_pb2.SubmitStreamRequest


@dataclass(frozen=True, kw_only=True)
class Request:
    """The jobs of a request, and of those shapes that were not known, what they say."""

    jobs: Jobs
    new: Mapping[bytes, jobs_pb2.JobSpec]


class Submits:
    """Reads and checks submits, and remembers the shapes of jobs that it has checked."""

    def __init__(self) -> None:
        self._known: dict[bytes, JobSpec] = {}

    def single(self, request: bytes) -> Submission:
        """Return the job of a SubmitRequest; raises InvalidInput naming field, value and what is allowed."""
        read = self.read(jobs_pb2.SubmitRequest, request)
        if len(read.jobs) != 1:
            # A job that is left out is an empty one; one that comes in parts is put together.
            whole = jobs_pb2.SubmitRequest.FromString(request)
            whole.job.SetInParent()
            read = self.read(jobs_pb2.SubmitRequest, whole.SerializeToString())
        return self._check(read, lambda _index: "")

    def batch(self, request: bytes) -> Submission:
        """Return the jobs of a SubmitBatchRequest; raises InvalidInput as `check`."""
        return self.check(self.read(jobs_pb2.SubmitBatchRequest, request))

    def read(self, kind: type[Submit], request: bytes) -> Request:
        """Return the jobs of a request of that kind; raises InvalidInput if it cannot be read."""
        # Whoever gives each job a time of its own has as many shapes as jobs.
        if len(self._known) > KINDS_KNOWN:
            self._known.clear()
        field = "job" if kind is jobs_pb2.SubmitRequest else "jobs"
        try:
            jobs = wire.jobs(request, kind.DESCRIPTOR.fields_by_name[field].number)
            new = {shape: jobs_pb2.JobSpec.FromString(shape) for shape in jobs.shapes if shape not in self._known}
        except (ValueError, DecodeError) as error:
            raise undecodable(request, kind.DESCRIPTOR) from error
        return Request(jobs=jobs, new=new)

    def check(self, request: Request) -> Submission:
        """Return jobs that may be stored.

        Raises:
            InvalidInput: naming the job by its index, field, value and what is allowed.
        """
        if (count := len(request.jobs)) > limits.SUBMIT_JOBS:
            raise InvalidInput("jobs", f"{count} jobs; at most {limits.SUBMIT_JOBS} are allowed in a batch")
        return self._check(request, lambda index: f"jobs[{index}].")

    def _check(self, request: Request, place: Callable[[int], str]) -> Submission:
        jobs, shapes = request.jobs, request.jobs.shapes
        kinds: dict[int, JobSpec] = {}
        for index, shape, payload in jobs.different():
            try:
                if shape not in kinds:
                    kinds[shape] = self._kind(shapes[shape], request.new)
                check_type_and_payload(kinds[shape].type, payload or NO_PAYLOAD)
            except InvalidInput as error:
                raise InvalidInput(f"{place(index)}{error.field}", error.problem) from error
        keys = jobs.keys
        if (bad := jobs.bad_key(limits.KEY_CHARS)) is not None:
            check_text(f"{place(bad)}idempotency_key", keys[bad] or "", limits.KEY_CHARS)
        payloads = jobs.payloads
        return Submission(
            kinds=[kinds[shape] for shape in range(len(shapes))],
            kind_of=jobs.shape_of,
            payloads=payloads if all(payloads) else [payload or NO_PAYLOAD for payload in payloads],
            keys=keys,
        )

    def _kind(self, shape: bytes, new: Mapping[bytes, jobs_pb2.JobSpec]) -> JobSpec:
        known = self._known.get(shape)
        if known is not None:
            return known
        kind = job_kind(new[shape])
        self._known[shape] = kind
        return kind
