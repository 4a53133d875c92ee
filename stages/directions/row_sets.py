"""The first pass of ridge and LDA: second moments of latents with labels, fold by fold, each label on the rows that know it.

A column's Σzzᵀ must be of the rows its Σzy is of, or the two do not fit together. So rows are kept apart by which labels
they know: where no label is missing that is one set, and one Σzzᵀ serves every column. A column's own statistic is the
merge of the sets that know it: nothing is imputed, and no column costs another a row. Folds are kept apart and the others
merged, never subtracted, so no digit is lost. Memory is bounded: when labels are missing in too many ways, the pass says so,
and columns are taken a few at a time (`alone`). Of wide latents only Σzzᵀ's diagonal is kept here, and the rest of it in
passes of its own (stages/directions/group_scatter.py).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.attributes import Column, LabelCounts
from stages.moments import Moments
from stages.row_hash import fractions
from stages.rows import Block, read_blocks
from stages.scatter.strips import BLOCK_VALUES
from stages.stage import Passes, PrecisionLost

MAX_BYTES = 8 * BLOCK_VALUES
"""Of all second moments of a pass. A process holds a few such states: two grow for each core, and one is merged."""
FOLD_SALT = "fit folds"

Known = tuple[int, ...]
"""Positions of the columns that a set of rows knows, in order."""
Parts = list[Moments]
"""One statistic a fold; the last one is of the held-out rows."""


@dataclass(slots=True)
class RowSets:
    """State of the pass: for every set of rows its parts, and what is known of all rows."""

    everything: Moments
    counts: LabelCounts
    training: LabelCounts
    sets: dict[Known, Parts] = field(default_factory=dict)
    overflow: bool = False
    non_finite: int = 0


@dataclass(frozen=True)
class RowSetPass:
    """A reduce stage over batches with `id`, `latent` and `labels`.

    `folds` ≥ 1 of the training rows, by hash of the id. `alone`: these columns, each on a set of its own (sets then overlap);
    otherwise rows that know the same columns make a set. `full` keeps Σzzᵀ, not its diagonal alone.
    """

    columns: tuple[Column, ...]
    dim: int
    holdout: float
    folds: int
    alone: tuple[int, ...] | None = None
    full: bool = True

    @property
    def set_bytes(self) -> int:
        return (self.folds + 1) * self.dim * (self.dim if self.full else len(self.columns) + 1) * 8

    def start(self) -> RowSets:
        none = LabelCounts.empty(len(self.columns))
        return RowSets(Moments.empty(self.dim, full=False), none, none)

    def add(self, state: RowSets, batch: pa.RecordBatch) -> RowSets:
        for block in read_blocks(batch, self.columns, holdout=self.holdout):
            state.non_finite += block.non_finite
            state.everything.absorb(Moments.of(block.latents, full=False))
            train = ~block.held_out
            state.counts = state.counts.merged(LabelCounts.of(block.values, block.known))
            state.training = state.training.merged(LabelCounts.of(block.values[train], block.known[train]))
            part = parts_of(block, self.folds)
            for known, rows in self._sets(block):
                if not state.overflow:
                    self._absorb(state, known, block, rows, part)
        return state

    def merge(self, a: RowSets, b: RowSets) -> RowSets:
        both = RowSets(
            a.everything.merged(b.everything),
            a.counts.merged(b.counts),
            a.training.merged(b.training),
            dict(a.sets),
            a.overflow or b.overflow,
            a.non_finite + b.non_finite,
        )
        for known, theirs in b.sets.items():
            mine = both.sets.get(known)
            # Never in place: a set may belong to another state as well.
            both.sets[known] = [p.merged(q) for p, q in zip(mine, theirs, strict=True)] if mine else theirs
        self._bound(both)
        return both

    def subtract(self, a: RowSets, b: RowSets) -> tuple[RowSets, float]:
        if a.overflow or b.overflow:
            raise PrecisionLost("labels were missing in too many ways to keep them")
        everything, growth = a.everything.without(b.everything)
        sets = dict(a.sets)
        if b.sets.keys() - sets.keys():
            raise PrecisionLost("rows go that were not there")
        for known, theirs in b.sets.items():
            pairs = [p.without(q) for p, q in zip(sets.pop(known), theirs, strict=True)]
            growth = max(growth, *(grown for _, grown in pairs))
            if any(part.n for part, _ in pairs):
                sets[known] = [part for part, _ in pairs]
        counts = a.counts.without(b.counts, self.columns), a.training.without(b.training, self.columns)
        return RowSets(everything, *counts, sets, non_finite=a.non_finite - b.non_finite), growth

    def _sets(self, block: Block) -> Iterator[tuple[Known, npt.NDArray[np.int64]]]:
        if self.alone is not None:
            yield from (((i,), np.flatnonzero(block.known[:, i])) for i in self.alone)
            return
        if block.known.all():
            yield tuple(range(len(self.columns))), np.arange(len(block))
            return
        patterns, of = np.unique(block.known, axis=0, return_inverse=True)
        for p, pattern in enumerate(patterns):
            if pattern.any():
                yield tuple(np.flatnonzero(pattern).tolist()), np.flatnonzero(of.reshape(-1) == p)

    def _absorb(
        self, state: RowSets, known: Known, block: Block, rows: npt.NDArray[np.int64], part: npt.NDArray[np.int64]
    ) -> None:
        if not len(rows):
            return
        if known not in state.sets:
            empty = [Moments.empty(self.dim, labels=len(known), full=self.full) for _ in range(self.folds + 1)]
            state.sets[known] = empty
            self._bound(state)
        if state.overflow:
            return
        for p, moments in enumerate(state.sets[known]):
            chosen = rows[part[rows] == p]
            if len(chosen):
                y = block.values[chosen][:, list(known)]
                moments.absorb(Moments.of(block.latents[chosen], y=y, full=self.full))

    def _bound(self, state: RowSets) -> None:
        # One set is always allowed: whether it fits at all is checked before anything runs.
        if state.overflow or (len(state.sets) > 1 and len(state.sets) * self.set_bytes > MAX_BYTES):
            state.overflow, state.sets = True, {}


def parts_of(block: Block, folds: int) -> npt.NDArray[np.int64]:
    """(rows,) which part each row is in: its fold among the training rows, or `folds` where it is held out."""
    if folds == 1:
        return np.where(block.held_out, 1, 0)
    fold = (fractions(block.groups, FOLD_SALT) * folds).astype(np.int64)
    return np.where(block.held_out, folds, fold)


@dataclass(frozen=True, slots=True)
class Group:
    """Columns that stand on the same rows: `members` positions, `parts` whose labels are those columns in that order."""

    members: tuple[int, ...]
    parts: Parts

    @property
    def training(self) -> tuple[int, ...]:
        """The parts that have rows and are not held out."""
        return tuple(p for p in self.every if p < len(self.parts) - 1)

    @property
    def every(self) -> tuple[int, ...]:
        """The parts that have rows."""
        return tuple(p for p, moments in enumerate(self.parts) if moments.n)

    def merged(self, parts: Sequence[int]) -> Moments:
        """The statistic of some parts together; of none, one without rows."""
        return reduce(Moments.merged, [self.parts[p] for p in parts]) if parts else self._none

    @property
    def _none(self) -> Moments:
        first = self.parts[0]
        return Moments.empty(first.dim, labels=len(self.members), full=first.zz.ndim == 2)


def groups(state: RowSets, columns: Sequence[int]) -> Iterator[Group]:
    """The statistics of some columns, those on the same rows together. A column that no row knows is in no group."""
    by_sets: dict[tuple[Known, ...], list[int]] = {}
    for i in columns:
        if of := tuple(sorted(known for known in state.sets if i in known)):
            by_sets.setdefault(of, []).append(i)
    for of, members in by_sets.items():
        per_set = [[p.with_labels([k.index(i) for i in members]) for p in state.sets[k]] for k in of]
        yield Group(tuple(members), [reduce(Moments.merged, parts) for parts in zip(*per_set, strict=True)])


def grouped(stage: RowSetPass) -> Passes[RowSets, tuple[RowSets, list[Group]]]:
    """The statistics of all columns that have any: one pass, or where labels are missing in too many ways a few more."""
    state = yield stage
    if not state.overflow:
        return state, list(groups(state, range(len(stage.columns))))
    found: list[Group] = []
    room = max(1, MAX_BYTES // stage.set_bytes)
    for start in range(0, len(stage.columns), room):
        some = tuple(range(start, min(start + room, len(stage.columns))))
        part = yield replace(stage, alone=some)
        found.extend(groups(part, some))
    return state, found
