"""The disentanglement step: a bounded sample of labelled latents, by hash of the id, scored against its known factors."""

from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.context import Context
from pipeline.groups import ungrouped
from pipeline.measurements import left_out, store_measurements
from pipeline.selection import no_row_left, selection_clause
from schemas.measurements import OK
from schemas.source import LabelType
from schemas.steps import DisentanglementStep
from schemas.tables import label_types
from stages.grouping import group_hashes
from stages.row_hash import hash_ids
from stages.rows import finite_rows
from stages.scores.disentangle import ScoreStatus, measure_disentanglement
from stages.scores.factors import read_factors

SAMPLE_VALUES = 2**25
"""Numbers the sample may hold: of wider latents there are fewer rows."""


def disentanglement(step: DisentanglementStep, ctx: Context) -> dict[str, Any]:
    """Runs the step; returns how many scores there are and how many say nothing."""
    latents = ctx.latents
    version = latents.version
    kinds = _factors(step, label_types(latents.schema.field("labels").type))
    rows = max(60, min(step.train + step.test, SAMPLE_VALUES // ctx.codec.latent.dim))
    if rows < step.train + step.test:
        ctx.notice(f"{step.name}: latents are wide, so {rows:,} rows are scored")
    clause = selection_clause(step, latents, version)
    ids = latents.sample_ids(rows, salt="disentanglement", where=clause, version=version)
    if not ids:
        raise no_row_left(step)
    ctx.started_step(step, total=len(ids))
    table = latents.take(ids, ["id", "latent", "labels"], version=version)
    codes, finite = finite_rows(table.column("latent"))
    kept = np.flatnonzero(finite)
    labels = _whole(table.column("labels")).take(pa.array(kept))
    names = _whole(table.column("id")).take(pa.array(kept))
    hashes = hash_ids(names)
    factors = read_factors(labels, kinds, bins=step.bins)
    owners = None
    if step.group is not None:
        owners = group_hashes(pa.record_batch({"id": names, "labels": labels}), step.group)
        if said := ungrouped(latents, step.group, clause, version=version):
            ctx.notice(f"{step.name}: {said}")
    found = list(measure_disentanglement(step, codes[kept], factors, hashes, owners))
    bad = left_out(len(ids) - len(kept), "non_finite", n=len(kept))
    store_measurements(step, ctx, [*found, *bad], version=version)
    ctx.progress(step, computed=len(kept), committed=len(found), failed=len(ids) - len(kept), total=len(ids))
    scores = [m for m in found if m.metric != "information"]
    return {
        "rows": len(kept),
        "non_finite": len(ids) - len(kept),
        "factors": sum(m.metric == "information" and m.status == OK for m in found),
        "scores": sum(m.value is not None for m in scores),
        "at_chance": sum(m.status == ScoreStatus.AT_CHANCE for m in scores),
        "missing": sum(m.value is None for m in scores),
    }


def _factors(step: DisentanglementStep, known: dict[str, LabelType]) -> dict[str, LabelType]:
    return known if step.factors == "all" else {name: known[name] for name in step.factors}


def _whole(column: pa.ChunkedArray) -> pa.Array:
    whole = column.combine_chunks()
    return whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole
