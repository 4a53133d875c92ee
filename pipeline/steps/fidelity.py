"""The fidelity step: reconstructions of the selected rows, and the codes of code sets, decoded where the workers are."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.code_set import CodeSet
from pipeline.context import Context
from pipeline.measurements import left_out, store_measurements
from pipeline.selection import selection_clause
from pipeline.store.table import Table
from schemas.errors import JobError
from schemas.steps import FidelityStep
from stages.evaluation.models import CodecSource
from stages.row_hash import fractions, hash_ids
from stages.scores.fidelity import measure_fidelity, measure_path_length
from stages.scores.path_length import path_space
from stages.scores.path_pass import PathLengths
from stages.scores.picture_features import LIKE, REFERENCE, Features, PictureFeatures

SPLIT_PICTURES = 4096
SPLIT_PAIRS = 1024
PAIR_VALUES = 2**24
"""Numbers of the first ends of all pairs: of wider latents there are fewer pairs."""


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
    if step.path_pairs:
        pairs = _pairs(step, latents, clause, version)
        lengths = ctx.executor.reduce(pairs, PathLengths(source, step.path_distance, step.path_distance_options))
        space = path_space(ctx.codec.latent)
        found.append(measure_path_length(np.sort(lengths), step.path_distance, space=space))
        found.extend(left_out(pairs.pairs.num_rows - len(lengths), "no_path", n=len(lengths)))
    pictures = sum(one.moments.n for one in state.sets.values())
    store_measurements(step, ctx, [*found, *left_out(state.left, "not_made", n=pictures)], version=version)
    ctx.progress(step, computed=total, committed=total, failed=state.left, total=total)
    sets = len(state.sets.keys() - {REFERENCE, LIKE})
    return {"rows": pictures, "sets": sets, "left_out": state.left, "extractor": step.extractor}


def _pairs(step: FidelityStep, latents: Table, clause: str | None, version: int) -> "PairSplits":
    """Pairs of rows by hash of the id, and a place between them: each row is in one pair at most."""
    dim = int(latents.schema.field("latent").type.list_size)
    ids = latents.sample_ids(2 * min(step.path_pairs, PAIR_VALUES // dim), salt="paths", where=clause, version=version)
    count = len(ids) // 2
    ends = latents.take(ids[: 2 * count], ["latent"], version=version).column("latent").combine_chunks()
    places = fractions(hash_ids(pa.array(ids[:count], pa.string())), "path place")
    columns = {"start": ends.slice(0, count), "end": ends.slice(count), "place": pa.array(places)}
    return PairSplits(pa.record_batch(columns))


@dataclass(frozen=True)
class PairSplits:
    """Pairs of latents in pieces. Implements `executors.base.Splits`."""

    pairs: pa.RecordBatch

    def __len__(self) -> int:
        return -(-int(self.pairs.num_rows) // SPLIT_PAIRS)

    def read(self, index: int) -> Iterator[pa.RecordBatch]:
        yield self.pairs.slice(index * SPLIT_PAIRS, SPLIT_PAIRS)


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
