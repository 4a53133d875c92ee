"""Measurements: written under their run and step, replaced by the same step, read back by report and command line."""

import json

from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.context import Context
from pipeline.measurements import read_measurements, store_measurements
from pipeline.run import run_job
from pipeline.store.store import Store
from schemas.errors import JobError
from schemas.job import Job
from schemas.measurements import Measurement
from schemas.steps import FitStep
from tests.jobs import job_data, make_images


def test_written_replaced_and_listed(tmp_path):
    job = Job.model_validate(job_data(make_images(tmp_path, 6), tmp_path / "store"))
    result = run_job(job, report=lambda event: None)
    store = Store.open(job.store)
    step = FitStep(name="look")
    first, second = (Measurement("effect", v, "a", "b", low=v - 1, high=v + 1, n=7) for v in (1.5, 2.5))
    with store.lease(job.dataset, run_id=result.run_id) as lease:
        ctx = Context(job=job, store=store, lease=lease, run_id=result.run_id, report=lambda event: None)
        store_measurements(step, ctx, [first], version=1)
        store_measurements(step, ctx, [second], version=1)
    assert read_measurements(ctx) == {("look", "fit"): [second]}
    shown = CliRunner().invoke(app, ["measurements", "--store", job.store, "--json"])
    (row,) = json.loads(shown.stdout)
    assert (row["metric"], row["value"], row["n"], row["status"]) == ("effect", 2.5, 7, "ok")
    inside = CliRunner().invoke(app, ["measurements", "--store", job.store, "--where", "false) OR (true"])
    assert isinstance(inside.exception, JobError) and "not closed" in str(inside.exception)
