"""`latentmill report JOB`: the page of the newest finished run, drawn again from the store. Writes nothing but the page."""

import json

from pipeline.context import Context
from pipeline.plan import make_plan
from pipeline.steps.report import write_report
from pipeline.store.store import Store
from schemas.errors import StoreError
from schemas.job import Job
from schemas.steps import InterpolateStep, ReportStep, TraverseStep


def report_again(job: Job, *, given: str, to: str) -> None:
    """Writes the page to `to`. Raises StoreError when no run of the dataset has finished yet."""
    make_plan(job)
    store = Store.open(job.store, options=job.store_options, create=False)
    where = f"dataset = '{job.dataset}' AND state = 'done'"
    rows = [r for b in store.runs().scan(["run_id", "summary", "started_at"], where=where) for r in b.to_pylist()]
    if not rows:
        raise StoreError(f"{store.uri} has no finished run of {job.dataset}; run the job first.")
    newest = max(rows, key=lambda row: row["started_at"])
    ctx = Context(
        job=job,
        store=store,
        lease=store.lease(job.dataset, run_id=newest["run_id"]),  # never taken: nothing is committed
        run_id=newest["run_id"],
        report=lambda event: None,
        given=given,
        started=newest["started_at"].timestamp(),
        summary=json.loads(newest["summary"]),
        work_in_store=False,
    )
    try:
        for step in job.steps:
            if isinstance(step, TraverseStep | InterpolateStep):
                from pipeline.steps.codes import define

                define(step, ctx)
        write_report(ReportStep(to=to, name="report"), ctx)
    finally:
        ctx.close()
