"""The fidelity step: reconstructions of the selected rows, and the codes of code sets, decoded where the workers are."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.code_set import CodeSet
from pipeline.context import Context
from pipeline.groups import ungrouped
from pipeline.measurements import left_out, store_measurements
from pipeline.selection import no_row_left, selection_clause
from pipeline.store.table import Table
from schemas.steps import FidelityStep
from stages.evaluation.models import CodecSource
from stages.grouping import BY_ID, group_hashes
from stages.row_hash import fractions, hash_ids
from stages.scores.fidelity import measure_fidelity, measure_path_length
from stages.scores.path_length import path_space
from stages.scores.path_pass import PathLengths
from stages.scores.picture_features import LIKE, PARENT_GROUPS, REFERENCE, Features, PictureFeatures

SPLIT_PICTURES = 4096
SPLIT_PAIRS = 1024
PAIR_VALUES = 2**24
"""Numbers of the first ends of all pairs: of wider latents there are fewer pairs."""


def fidelity(step: FidelityStep, ctx: Context) -> dict[str, Any]:
    """Runs the step; returns how many pictures were scored, in how many sets, and how many could not be made."""
    latents = ctx.latents
    version = latents.version
    clause = selection_clause(step, latents, version)
    columns = ["id", "latent", *_labels(step.group)]
    rows = latents.splits(columns=columns, where=clause, version=version, rows=SPLIT_PICTURES)
    if not rows.rows:
        raise no_row_left(step, to=" to be the reference")
    if said := ungrouped(latents, step.group, clause, version=version):
        ctx.notice(f"{step.name}: {said}")
    codes = [CodeSplits(ctx.code_sets[name], step.group) for name in step.of or ctx.code_sets]
    total = rows.rows + sum(splits.codes for splits in codes)
    ctx.started_step(step, total=total)
    source = CodecSource(ctx.codec.spec, ctx.codec.load, ctx.codec.allow_code)
    stage = PictureFeatures(source, step.extractor, step.extractor_options, sample=step.sample, group=step.group)
    state: Features = ctx.executor.reduce(rows, stage)
    for splits in codes:
        state = stage.merge(state, ctx.executor.reduce(splits, stage))
    grouped = step.group is not None
    found = list(measure_fidelity(state.sets, neighbours=step.neighbours, extractor=step.extractor, grouped=grouped))
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
    """Pairs of rows by hash of the id, and a place between them: each row, and of each group one, is in one pair at most."""
    dim = int(latents.schema.field("latent").type.list_size)
    ids = latents.sample_ids(2 * min(step.path_pairs, PAIR_VALUES // dim), salt="paths", where=clause, version=version)
    if step.group is not None:
        table = latents.take(ids, ["id", *_labels(step.group)], version=version).combine_chunks()
        firsts = np.unique(group_hashes(table.to_batches()[0], step.group), return_index=True)[1]
        ids = [ids[i] for i in np.sort(firsts)]
    count = len(ids) // 2
    ends = latents.take(ids[: 2 * count], ["latent"], version=version).column("latent").combine_chunks()
    places = fractions(hash_ids(pa.array(ids[:count], pa.string())), "path place")
    columns = {"start": ends.slice(0, count), "end": ends.slice(count), "place": pa.array(places)}
    return PairSplits(pa.record_batch(columns))


def _labels(group: str | None) -> list[str]:
    """The columns besides the id that say a row's group."""
    return [] if group is None or group.startswith(BY_ID) else ["labels"]


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
    """A code set in pieces, as codes, which know the groups of their parents where there are. Implements `executors.base.Splits`."""

    code_set: CodeSet
    group: str | None = None

    @property
    def codes(self) -> int:
        return self.code_set.shape(0).end_seq

    def __len__(self) -> int:
        return -(-self.code_set.selection.rows // self._rows)

    def read(self, index: int) -> Iterator[pa.RecordBatch]:
        start = index * self._rows
        stop = min(start + self._rows, self.code_set.selection.rows)
        codes = self.code_set.expand(start, stop, first_seq=0)
        yield codes if self.group is None else self._grouped(codes, start, stop, self.group)

    def _grouped(self, codes: pa.RecordBatch, start: int, stop: int, group: str) -> pa.RecordBatch:
        selected, parents = self.code_set.selection.read(start, stop), codes.column("parents")
        ids, rows = selected.column("ids").flatten(), selected.column("rows").flatten()
        groups = pa.array([], pa.uint64())
        if len(rows):
            latents, version = self.code_set.latents, self.code_set.version
            table = latents.take_rows(rows.to_pylist(), ["id", *_labels(group)], version=version).combine_chunks()
            groups = pa.array(group_hashes(table.to_batches()[0], group))
        of_parents = groups.take(pc.index_in(parents.flatten(), value_set=ids))
        ends = np.cumsum([0, *parents.value_lengths().to_pylist()])
        column = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), of_parents)
        return codes.append_column(PARENT_GROUPS, column)

    @property
    def _rows(self) -> int:
        return max(1, SPLIT_PICTURES // self.code_set.shape(0).codes_per_row)
