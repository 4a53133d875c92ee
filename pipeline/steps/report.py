"""The report step: one self-contained HTML page about the run so far."""

from typing import Any

from pipeline import artifacts
from pipeline.context import Context
from pipeline.versions import library_versions
from schemas.steps import ReportStep


def write_report(step: ReportStep, ctx: Context) -> dict[str, Any]:
    """Runs the step; returns where the page is."""
    from pipeline.report import gather
    from stages.report.page import render_report

    ctx.started_step(step, total=1)
    page = render_report(gather(ctx, rows=step.rows, given=ctx.given, versions=library_versions()))
    artifacts.write_bytes(step.to, page.encode())
    ctx.progress(step, computed=1, committed=1, failed=0, total=1)
    return {"written": step.to, "bytes": len(page.encode())}
