"""Which batches may hold jobs that are stored already: only those are inserted with a look for conflicts."""

from dataclasses import replace

from orqestra.model.job import JobSpec
from orqestra.store.submitting import Batch, PlacedJob

JOB = PlacedJob(spec=JobSpec(type="noop"), lane_id=1)


def test_a_job_may_be_stored_already_by_its_key_or_as_a_step() -> None:
    keyed = replace(JOB, spec=replace(JOB.spec, key="k"))
    step = replace(JOB, run_id=1, step_key="s")

    assert Batch.of([JOB, keyed]).may_be_known
    assert Batch.of([JOB, step]).may_be_known
    assert not Batch.of([JOB, JOB]).may_be_known
