"""Class statistics within cells of control attributes: the one pass of both differences of means.

A cell is one combination of values of the controls; with no controls there is one cell, and the balanced difference of
means is the plain one. In every cell the classes of each fitted column are kept apart. A row without a value for every
control is in no cell. Memory is bounded: a table that outgrows MAX_CELLS or MAX_BYTES stays empty and says so.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stages.attributes import Column
from stages.moments import GroupMoments, Moments
from stages.rows import Block, read_blocks
from stages.stage import PrecisionLost

MAX_CELLS = 4096
MAX_BYTES = 2**28

Key = tuple[bool | int | str, ...]
Cells = dict[Key, GroupMoments]


@dataclass(slots=True)
class CellTable:
    """State of the pass. `train` and `held_out` map a cell to its groups: all rows, then positives and negatives of each
    column that is not itself a control. `everything` holds every row, labelled or not.
    """

    everything: Moments
    train: Cells = field(default_factory=dict)
    held_out: Cells = field(default_factory=dict)
    overflow: bool = False
    non_finite: int = 0

    def all_rows(self) -> Cells:
        """Both folds together."""
        both = dict(self.train)
        for key, cell in self.held_out.items():
            both[key] = both[key].merged(cell) if key in both else cell
        return both


@dataclass(frozen=True)
class CellPass:
    """A reduce stage over batches with `id`, `latent` and `labels`."""

    columns: tuple[Column, ...]
    controls: tuple[str, ...]
    dim: int
    holdout: float

    @property
    def free(self) -> tuple[int, ...]:
        """Positions of the columns that are not controls, whose classes need groups of their own."""
        return tuple(i for i, column in enumerate(self.columns) if column.label not in self.controls)

    def start(self) -> CellTable:
        return CellTable(Moments.empty(self.dim, full=False))

    def add(self, state: CellTable, batch: pa.RecordBatch) -> CellTable:
        for block in read_blocks(batch, self.columns, holdout=self.holdout):
            state.non_finite += block.non_finite
            state.everything.absorb(Moments.of(block.latents, full=False))
            for key, rows in cells_of(block.labels, self.controls):
                for cells, fold in ((state.train, ~block.held_out[rows]), (state.held_out, block.held_out[rows])):
                    if fold.any() and not state.overflow:
                        _absorb(cells, key, self._groups(block, rows[fold]))
            self._bound(state)
        return state

    def merge(self, a: CellTable, b: CellTable) -> CellTable:
        both = CellTable(
            a.everything.merged(b.everything),
            dict(a.train),
            dict(a.held_out),
            overflow=a.overflow or b.overflow,
            non_finite=a.non_finite + b.non_finite,
        )
        for mine, theirs in ((both.train, b.train), (both.held_out, b.held_out)):
            for key, groups in theirs.items():
                _absorb(mine, key, groups)
        self._bound(both)
        return both

    def subtract(self, a: CellTable, b: CellTable) -> tuple[CellTable, float]:
        if a.overflow or b.overflow:
            raise PrecisionLost("there were too many cells to keep them")
        everything, growth = a.everything.without(b.everything)
        folds: list[Cells] = []
        for mine, theirs in ((a.train, b.train), (a.held_out, b.held_out)):
            left = dict(mine)
            if theirs.keys() - left.keys():
                raise PrecisionLost("rows go that were not there")
            for key, groups in theirs.items():
                left[key], grown = left.pop(key).without(groups)
                growth = max(growth, grown)
                if not left[key].n[0]:
                    del left[key]
            folds.append(left)
        return CellTable(everything, folds[0], folds[1], non_finite=a.non_finite - b.non_finite), growth

    def _groups(self, block: Block, rows: npt.NDArray[np.int64]) -> GroupMoments:
        free = list(self.free)
        known, positive = block.known.T[free][:, rows], block.values.T[free][:, rows] > 0.5
        member = np.vstack([np.ones((1, len(rows)), bool), known & positive, known & ~positive])
        return GroupMoments.of(block.latents[rows], member.T)

    def _bound(self, state: CellTable) -> None:
        cells = len(state.train) + len(state.held_out)
        numbers = cells * (1 + 2 * len(self.free)) * self.dim * 2
        if state.overflow or len(state.train) > MAX_CELLS or (cells > 2 and numbers * 8 > MAX_BYTES):
            state.overflow = True
            state.train, state.held_out = {}, {}


def _absorb(cells: Cells, key: Key, groups: GroupMoments) -> None:
    # Never in place: a cell may belong to another state as well.
    cells[key] = cells[key].merged(groups) if key in cells else groups


def cells_of(labels: pa.StructArray, controls: Sequence[str]) -> Iterator[tuple[Key, npt.NDArray[np.int64]]]:
    """Every cell among the rows, with the positions of its rows; rows that lack a control are left out."""
    if not controls:
        yield (), np.arange(len(labels))
        return
    encoded = [pc.struct_field(labels, name).dictionary_encode() for name in controls]
    values = [array.dictionary.to_pylist() for array in encoded]
    codes = np.column_stack([a.indices.fill_null(-1).to_numpy(zero_copy_only=False) for a in encoded])
    complete = np.flatnonzero((codes >= 0).all(axis=1))
    if not len(complete):  # nothing to split: NumPy would make one empty part of it
        return
    found, cell_of_row = np.unique(codes[complete], axis=0, return_inverse=True)
    order = np.argsort(cell_of_row, kind="stable")
    ends = np.cumsum(np.bincount(cell_of_row, minlength=len(found)))
    for cell, rows in zip(found, np.split(complete[order], ends[:-1]), strict=True):
        yield tuple(known[code] for known, code in zip(values, cell, strict=True)), rows


@dataclass(frozen=True, slots=True)
class ClassPairs:
    """The two classes of one column in every cell of the *other* controls; first axis: cells."""

    positive: GroupMoments
    negative: GroupMoments


def class_pairs(cells: Cells, stage: CellPass, column: int) -> ClassPairs:
    """Takes `column` out of the controls, where it is one, and gathers its classes cell by cell."""
    label = stage.columns[column].label
    at = stage.controls.index(label) if label in stage.controls else None
    pairs: dict[Key, tuple[GroupMoments, GroupMoments]] = {}
    for key, groups in cells.items():
        both = _classes(groups, stage, column, None if at is None else key[at])
        other = key if at is None else key[:at] + key[at + 1 :]
        before = pairs.get(other)
        pairs[other] = both if before is None else (before[0].merged(both[0]), before[1].merged(both[1]))
    empty = GroupMoments.empty(stage.dim, groups=0)
    return ClassPairs(
        stacked([p for p, _ in pairs.values()], empty=empty), stacked([q for _, q in pairs.values()], empty=empty)
    )


def classes_with(columns: Sequence[Column], pairs: Sequence[ClassPairs], column: int) -> tuple[list[GroupMoments], int]:
    """Every class of the label that `column` is of, and which of them the column is."""
    if columns[column].kind != "category":
        return [pairs[column].positive, pairs[column].negative], 0
    same = [i for i, other in enumerate(columns) if other.label == columns[column].label]
    return [pairs[i].positive for i in same], same.index(column)


def _classes(
    groups: GroupMoments, stage: CellPass, column: int, value: bool | int | str | None
) -> tuple[GroupMoments, GroupMoments]:
    if value is None:
        place = stage.free.index(column)
        return groups.pick(1 + place), groups.pick(1 + len(stage.free) + place)
    rows, none = groups.pick(0), GroupMoments.empty(stage.dim, groups=1)
    wanted = stage.columns[column].value
    return (rows, none) if value == (True if wanted is None else wanted) else (none, rows)


def stacked(groups: Sequence[GroupMoments], *, empty: GroupMoments) -> GroupMoments:
    """Several statistics of one group each as one statistic of several groups."""
    if not groups:
        return empty
    origin = groups[0].origin
    return GroupMoments(
        np.concatenate([g.n for g in groups]),
        origin,
        np.concatenate([g.offset + (g.origin - origin) for g in groups]),
        np.concatenate([g.scatter for g in groups]),
    )
