"""The compact step: fewer, larger fragments and fewer versions, for tables that many small commits have written."""

from datetime import timedelta
from typing import Any

from pipeline.context import Context
from schemas.steps import CompactStep


def compact(step: CompactStep, ctx: Context) -> dict[str, Any]:
    """Runs the step over latents, failures and renders; returns fragments merged, versions and bytes removed."""
    tables = [t for t in (ctx.latents, ctx.failures, ctx.store.renders(ctx.job.dataset)) if t.exists()]
    ctx.started_step(step, total=len(tables))
    token, fragments, versions, removed = ctx.lease.token, 0, 0, 0
    for table in tables:
        table.fence(token)
        # A call merges so much at most, and commits it: a step that is stopped half-way has done half.
        while merged := table.compact(token=token, target_bytes=step.target_mib * 2**20):
            fragments += merged
    # Readers are pointed at the new version before the old ones go.
    ctx.publish()
    for done, table in enumerate(tables, start=1):
        gone = table.trim_versions(keep=step.keep_versions, older_than=timedelta(hours=step.keep_hours), token=token)
        versions, removed = versions + gone.versions, removed + gone.bytes
        ctx.progress(step, computed=done, committed=done, failed=0, total=len(tables))
    return {"fragments": fragments, "versions": versions, "bytes": removed}
