"""The index step: a vector index whose recall is measured against exact search, and scalar indexes for filters."""

from dataclasses import asdict
from typing import Any

from pipeline.context import Context
from schemas.errors import StoreError
from schemas.steps import IndexStep


def index(step: IndexStep, ctx: Context) -> dict[str, Any]:
    """Runs the step; returns kind, rows and recall@10. Raises StoreError when recall is below `min_recall`."""
    latents = ctx.latents
    rows = latents.count_rows()
    ctx.started_step(step, total=rows)
    latents.fence(ctx.lease.token)
    report = latents.build_vector_index(step, token=ctx.lease.token)
    if step.min_recall is not None and report.recall is not None and report.recall < step.min_recall:
        raise StoreError(
            f"recall@10 of the {report.kind} index is {report.recall:.3f}, below min_recall = {step.min_recall}. "
            "Raise nprobes, choose ivf_flat or ivf_hnsw_sq, or search exactly with kind: flat."
        )
    ctx.publish()
    ctx.progress(step, computed=rows, committed=rows, failed=0, total=rows)
    return asdict(report)
