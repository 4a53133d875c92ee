"""The render step: code sets → codes → decoded pictures → files and renders rows, skipping what is there already.

Data's way: groups of selected rows (a group is what shares a picture or shard) → codes whose recipe is not in the renders
table yet (`pipeline.undrawn`) → decode on the actor pool → draw, encode, write → the driver commits rows. Each code that
was to be drawn must come back in one receipt; those that do not are done again, and a run that cannot get them fails.
"""

import uuid
from datetime import timedelta
from typing import Any

import numpy as np

from pipeline.code_set import CodeSet
from pipeline.codec import OnWorker
from pipeline.context import Context
from pipeline.executors.base import MapJob, Receipt
from pipeline.measurements import store_measurements
from pipeline.render import RenderSink
from pipeline.store.table import Table
from pipeline.undrawn import Mask, splits_of, undrawn
from schemas.errors import AccountingError, JobError
from schemas.steps import InterpolateStep, RenderStep
from schemas.tables import RENDERS
from stages.code_sets.convergence import Converged, measurements, together
from stages.render_plan import RenderPlan, check_render
from stages.stage import MapStage

ROUNDS = 3
COMMIT_ROWS = 5000


def render(step: RenderStep, ctx: Context) -> dict[str, Any]:
    """Runs the step; returns how many codes were drawn, were there, and could not be drawn.

    Raises AccountingError when codes that were to be drawn come back from no worker.
    """
    code_sets = [ctx.code_sets[str(s.name)] for s in ctx.job.code_sets_of(step)]
    plan = _plan(step, ctx, code_sets)
    if problems := list(check_render(plan)):
        raise JobError(problems)
    renders = ctx.store.renders(ctx.job.dataset)
    renders.create(RENDERS)
    renders.fence(ctx.lease.token)
    renders.add_missing(RENDERS, token=ctx.lease.token)
    renders.clean_orphans(timedelta(0), token=ctx.lease.token)
    total = plan.code_sets[-1].end_seq
    every = splits_of(plan, code_sets, np.ones(total, np.bool_), batch_rows=_batch_rows(plan))
    left = undrawn(every, renders, ctx.executor)
    asked = int(left.todo.sum())
    ctx.started_step(step, total=asked, already=total - asked)
    commits = _Commits(renders, ctx, left.todo)
    for again in range(ROUNDS):
        if not commits.todo.any():
            break
        if again:
            ctx.notice(f"{step.name}: {int(commits.todo.sum())} codes came back from no worker; doing them again")
        _round(step, ctx, plan, code_sets, commits)
    if missing := int(commits.todo.sum()):
        raise AccountingError(
            f"{asked} codes of {step.name} were to be drawn, but {missing} came back from no worker, {ROUNDS} times. "
            "Run the same command again: it draws what is missing. If they stay away, please report it."
        )
    _convergence(ctx, commits.converged if left.converged is None else left.converged)
    return {
        "codes": commits.codes,
        "written": commits.codes - commits.failed,
        "failed": commits.failed,
        "already": total - asked,
        "to": step.to,
        "bytes": commits.bytes,
    }


def _round(step: RenderStep, ctx: Context, plan: RenderPlan, code_sets: list[CodeSet], commits: "_Commits") -> None:
    """Draws what is to be done, and commits whatever came back, also when something stops it."""
    splits = splits_of(plan, code_sets, commits.todo, batch_rows=_batch_rows(plan))
    renders = ctx.store.renders(ctx.job.dataset)
    height, width = plan.picture
    job = MapJob(
        splits=splits,
        stage=OnWorker(ctx.codec, _decode),
        sink=RenderSink(plan, ctx.job.dataset, ctx.run_id, renders, replacing=renders.count_rows() > 0),
        batch_rows=splits.batch_rows,
        row_bytes=height * width * 3,
    )
    try:
        for receipt in ctx.executor.map(job):
            commits.take(receipt)
            _tell(step, ctx, commits, read=ctx.executor.rows_read())
    finally:
        # A lost lease refuses this commit as any other.
        commits.flush()
    _tell(step, ctx, commits)


def _convergence(ctx: Context, found: Converged) -> None:
    """Stores how the geodesics went, under the step that defined them, and tells of those that did not converge."""
    for step in ctx.job.steps:
        if isinstance(step, InterpolateStep) and (one := found.get(str(step.name))):
            store_measurements(step, ctx, measurements(one, tolerance=step.tolerance), version=ctx.latents_version)
            if one.converged < one.paths:
                rest = one.paths - one.converged
                ctx.notice(f"{step.name}: {rest} of {one.paths} geodesics did not converge; worst: {one.worst[1]}")


def _tell(step: RenderStep, ctx: Context, commits: "_Commits", *, read: int = 0) -> None:
    ctx.progress(
        step,
        read=read,
        computed=commits.codes,
        committed=commits.committed,
        failed=commits.failed,
        total=commits.asked,
    )


def _decode(*codec: Any, **options: Any) -> MapStage:
    from stages.decode import Decode  # torch, on the worker only

    return Decode(*codec, **options)


def _plan(step: RenderStep, ctx: Context, code_sets: list[CodeSet]) -> RenderPlan:
    shapes = []
    first = 0
    for code_set in code_sets:
        shapes.append(code_set.shape(first))
        first = shapes[-1].end_seq
    return RenderPlan(step, tuple(shapes), ctx.codec.fingerprint, ctx.codec.spec.preprocess.size)


def _batch_rows(plan: RenderPlan) -> int:
    height, width = plan.picture
    return max(1, min(256, 16 * 2**20 // (height * width * 3)))


class _Commits:
    """Commits renders rows as receipts come in; a picture that is drawn again replaces its row.

    `todo` is a mask over `seq`: the codes that no receipt has brought yet.
    """

    def __init__(self, renders: Table, ctx: Context, todo: Mask) -> None:
        self._renders, self._ctx = renders, ctx
        self._waiting: list[Receipt] = []
        self.todo = todo.copy()
        self.asked = int(todo.sum())
        self.codes = self.failed = self.bytes = self.committed = 0
        self.converged: Converged = {}

    def take(self, receipt: Receipt) -> None:
        """Adds one receipt, and commits when it is time."""
        if not receipt.rows or not all(self.todo[a:b].all() for a, b in receipt.ranges):
            # A split that ran twice, however it was cut. If a part were new it stays out too: the next round draws it.
            return
        for a, b in receipt.ranges:
            self.todo[a:b] = False
        self._waiting.append(receipt)
        self.converged = together(self.converged, receipt.converged)
        self.codes += receipt.rows
        self.failed += receipt.failed
        self.bytes += receipt.bytes
        if sum(r.rows for r in self._waiting) >= COMMIT_ROWS:
            self.flush()

    def flush(self) -> None:
        """Makes everything taken so far visible."""
        waiting, self._waiting = self._waiting, []
        fragments = [f for r in waiting for f in r.fragments.get(self._renders.name, ())]
        if fragments:
            replaced = [key for r in waiting for key in r.keys]
            self._ctx.lease.check()
            properties = {"run": self._ctx.run_id, "attempt": uuid.uuid4().hex}
            self._renders.commit(fragments, token=self._ctx.lease.token, properties=properties, replaces=replaced)
        self.committed += sum(r.rows for r in waiting)
