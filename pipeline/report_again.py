"""`latentmill report JOB`: the page of the newest finished run, drawn again from the store. Writes nothing but the page.

It shows the dataset as the catalog does (design §5.3): what another run has half encoded meanwhile is not on it.
"""

import json

from pipeline.context import Context
from pipeline.plan import make_plan
from pipeline.steps.report import write_report
from pipeline.store.store import Store
from schemas.errors import StoreError
from schemas.job import Job
from schemas.steps import CodeSetStep, ReportStep


def report_again(job: Job, *, given: str, to: str) -> None:
    """Writes the page to `to`. Raises StoreError when no run of the dataset has finished yet."""
    make_plan(job)
    store = Store.open(job.store, options=job.store_options, create=False)
    where = f"dataset = '{job.dataset}' AND state = 'done'"
    rows = [r for b in store.runs().scan(["run_id", "summary", "started_at"], where=where) for r in b.to_pylist()]
    if not rows:
        raise StoreError(f"{store.uri} has no finished run of {job.dataset}; run the job first.")
    newest = max(rows, key=lambda row: row["started_at"])
    summary = json.loads(newest["summary"])
    ctx = Context(
        job=job,
        store=store,
        lease=store.lease(job.dataset, run_id=newest["run_id"]),  # never taken: nothing is committed
        run_id=newest["run_id"],
        report=lambda event: None,
        given=given,
        started=newest["started_at"].timestamp(),
        summary=summary,
        work_in_store=False,
    )
    try:
        drawn = [step for step in job.steps if isinstance(step, CodeSetStep)]
        if drawn:
            from pipeline.steps.codes import define

            ctx.pinned = _shown(ctx)
            for step in drawn:
                define(step, ctx)
        # The run's own: what its steps say once more here would stand there twice.
        ctx.notices = [notice for counts in summary.values() for notice in counts.get("notices", ())]
        own = next((step for step in job.steps if isinstance(step, ReportStep)), ReportStep(to=to, name="report"))
        write_report(own.model_copy(update={"to": to}), ctx)
    finally:
        ctx.close()


def _shown(ctx: Context) -> int:
    """The version of the job's latents that readers see. Raises StoreError when they see another codec's, or none."""
    entry = ctx.store.current(ctx.job.dataset)
    if entry is None or entry.table != ctx.latents.name:
        seen = "none yet" if entry is None else f"those of codec {entry.fingerprint[:16]}"
        raise StoreError(
            f"Readers of {ctx.job.dataset} see {seen}; this job's codec is {ctx.codec.fingerprint[:16]}. "
            "Fix: run the job to its end, or use the job file of that codec."
        )
    return entry.version
