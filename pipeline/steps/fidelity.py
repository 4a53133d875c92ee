"""The fidelity step: reconstructions of the selected rows, and the codes of code sets, decoded where the workers are."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.code_set import CodeSet
from pipeline.context import Context
from pipeline.measurements import store_measurements
from pipeline.selection import selection_clause
from schemas.errors import JobError
from schemas.steps import FidelityStep
from stages.evaluation.effects import CodecSource
from stages.scores.fidelity import measure_fidelity
from stages.scores.picture_features import Features, PictureFeatures

SPLIT_PICTURES = 4096


def fidelity(step: FidelityStep, ctx: Context) -> dict[str, Any]:
    """Runs the step; returns how many pictures were scored, in how many sets, and how many could not be made."""
    latents = ctx.latents
    version = latents.version
    clause = selection_clause(step, latents, version)
    rows = latents.splits(columns=["id", "latent"], where=clause, version=version, rows=SPLIT_PICTURES)
    if not rows.rows:
        raise JobError.one(f"{step.name}.where", step.where, "no row is left to be the reference.", "loosen the filter")
    codes = [CodeSplits(ctx.code_sets[name]) for name in step.of or ctx.code_sets]
    total = rows.rows + sum(splits.codes for splits in codes)
    ctx.started_step(step, total=total)
    source = CodecSource(ctx.codec.spec, ctx.codec.load, ctx.codec.allow_code)
    stage = PictureFeatures(source, step.extractor, step.extractor_options, sample=step.sample)
    state: Features = ctx.executor.reduce(rows, stage)
    for splits in codes:
        state = stage.merge(state, ctx.executor.reduce(splits, stage))
    found = list(measure_fidelity(state.sets, neighbours=step.neighbours, extractor=step.extractor))
    store_measurements(step, ctx, found, version=version)
    ctx.progress(step, computed=total, committed=total, failed=state.left, total=total)
    pictures = sum(one.moments.n for one in state.sets.values())
    return {"rows": pictures, "sets": len(state.sets) - 2, "left_out": state.left, "extractor": step.extractor}


@dataclass(frozen=True)
class CodeSplits:
    """A code set in pieces, as codes. Implements `executors.base.Splits`."""

    code_set: CodeSet

    @property
    def codes(self) -> int:
        return self.code_set.shape(0).end_seq

    def __len__(self) -> int:
        return -(-self.code_set.selection.rows // self._rows)

    def read(self, index: int) -> Iterator[pa.RecordBatch]:
        start = index * self._rows
        yield self.code_set.expand(start, min(start + self._rows, self.code_set.selection.rows), first_seq=0)

    @property
    def _rows(self) -> int:
        return max(1, SPLIT_PICTURES // self.code_set.shape(0).codes_per_row)
