"""The render step: code sets → codes → decoded pictures → files and renders rows, skipping what is there already.

Data's way: groups of selected rows (a group is what shares a picture or shard) → codes → those whose recipe is not in the
renders table yet → decode on the actor pool → draw, encode, write → the driver commits rows.
"""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pyarrow as pa

from pipeline import artifacts
from pipeline.code_set import CodeSet
from pipeline.codec import OnWorker
from pipeline.context import Context
from pipeline.executors.base import MapJob, Receipt
from pipeline.render import RenderSink
from pipeline.selection import id_in
from pipeline.store.table import Table
from schemas.errors import JobError
from schemas.steps import RenderStep
from schemas.tables import RENDERS
from stages.render_plan import RenderPlan, check_render, codes_of, group_rows, pending, render_ids
from stages.stage import MapStage

SPLIT_BYTES = 32 * 2**20
COMMIT_ROWS = 5000


def render(step: RenderStep, ctx: Context) -> dict[str, Any]:
    """Runs the step; returns how many codes were drawn, were there, and could not be drawn."""
    code_sets = [ctx.code_sets[str(s.name)] for s in ctx.job.code_sets_of(step)]
    plan = _plan(step, ctx, code_sets)
    if problems := list(check_render(plan)):
        raise JobError(problems)
    renders = ctx.store.renders(ctx.job.dataset)
    renders.create(RENDERS)
    renders.fence(ctx.lease.token)
    renders.clean_orphans(timedelta(0), token=ctx.lease.token)
    splits = CodeSplits(plan, tuple(code_sets), renders, renders.version, batch_rows=_batch_rows(plan))
    total = sum(shape.end_seq - shape.first_seq for shape in plan.code_sets)
    ctx.started_step(step, total=total)
    height, width = plan.picture
    job = MapJob(
        splits=splits,
        stage=OnWorker(ctx.codec, _decode),
        sink=RenderSink(plan, ctx.job.dataset, ctx.run_id, renders, replacing=renders.count_rows() > 0),
        batch_rows=splits.batch_rows,
        row_bytes=height * width * 3,
    )
    commits = _Commits(renders, ctx)
    for receipt in ctx.executor.map(job):
        commits.take(receipt)
        ctx.progress(
            step,
            read=ctx.executor.rows_read(),
            computed=commits.codes,
            committed=commits.committed,
            failed=commits.failed,
            total=total,
        )
    commits.flush()
    return {
        "codes": commits.codes,
        "written": commits.codes - commits.failed,
        "failed": commits.failed,
        "already": total - commits.codes,
        "to": step.to,
        "bytes": commits.bytes,
    }


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


@dataclass(frozen=True)
class CodeSplits:
    """Whole groups of a render's code sets, as codes still to be drawn. Implements `executors.base.Splits`."""

    plan: RenderPlan
    code_sets: tuple[CodeSet, ...]
    renders: Table
    version: int
    batch_rows: int

    def __len__(self) -> int:
        return sum(len(self._cuts(i)) for i in range(len(self.code_sets)))

    def read(self, index: int) -> Iterator[pa.RecordBatch]:
        for i, code_set in enumerate(self.code_sets):
            cuts = self._cuts(i)
            if index < len(cuts):
                start = cuts[index]
                stop = min(start + cuts.step, code_set.selection.rows)
                codes = code_set.expand(start, stop, first_seq=self.plan.code_sets[i].first_seq)
                todo = codes.filter(pa.array(pending(self.plan, codes, self._done(codes))))
                yield from (todo.slice(at, self.batch_rows) for at in range(0, todo.num_rows, self.batch_rows))
                return
            index -= len(cuts)

    def _cuts(self, i: int) -> range:
        """First rows of the splits of one code set: whole groups, about 32 MiB of pictures, at least 8 splits if there are."""
        shape = self.plan.code_sets[i]
        height, width = self.plan.picture
        group = group_rows(self.plan.step, shape, self.plan.picture)
        by_bytes = SPLIT_BYTES // (shape.codes_per_row * height * width * 3)
        rows = max(1, min(by_bytes, -(-shape.rows // 8)) // group) * group
        return range(0, shape.rows, rows)

    def _done(self, codes: pa.RecordBatch) -> dict[str, str]:
        """Recipes of the pictures of `codes` that an earlier run finished, those included that it found impossible."""
        ids = sorted({i for code in codes_of(codes) for i in render_ids(self.plan, [code])})
        if not self.renders.count_rows(version=self.version):
            return {}
        rows = self.renders.scan(["id", "recipe", "uri"], where=id_in(ids), version=self.version)
        return {r["id"]: r["recipe"] for batch in rows for r in batch.to_pylist() if _still_there(r["uri"])}


def _still_there(uri: str | None) -> bool:
    """Whether a picture that was written is there. Only asked where asking costs nothing: on this machine's disks."""
    return uri is None or not artifacts.is_local(uri) or artifacts.exists(uri.split("#", 1)[0])


class _Commits:
    """Commits renders rows as receipts come in; a picture that is drawn again replaces its row."""

    def __init__(self, renders: Table, ctx: Context) -> None:
        self._renders, self._ctx = renders, ctx
        self._seen: set[tuple[int, int]] = set()
        self._waiting: list[Receipt] = []
        self.codes = self.failed = self.bytes = self.committed = 0

    def take(self, receipt: Receipt) -> None:
        if not receipt.rows or set(receipt.ranges) & self._seen:
            return  # nothing was left to draw, or a split that ran twice
        self._seen |= set(receipt.ranges)
        self._waiting.append(receipt)
        self.codes += receipt.rows
        self.failed += receipt.failed
        self.bytes += receipt.bytes
        if sum(r.rows for r in self._waiting) >= COMMIT_ROWS:
            self.flush()

    def flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        fragments = [f for r in waiting for f in r.fragments.get(self._renders.name, ())]
        if fragments:
            replaced = [key for r in waiting for key in r.keys]
            self._ctx.lease.check()
            properties = {"run": self._ctx.run_id, "attempt": uuid.uuid4().hex}
            self._renders.commit(fragments, token=self._ctx.lease.token, properties=properties, replaces=replaced)
        self.committed += sum(r.rows for r in waiting)
