"""Σzzᵀ of the rows that some columns stand on, at any width: whole, in strips on disk, or sketched (stages/scatter/).

Up to `Limits.full` numbers a latent it ends as a whole matrix, of one subset of the rows at a time: kept whole by the first
pass where all parts fit, otherwise put together from strips. Up to `Limits.strips` it stays in strips. Beyond, the strongest
directions of all rows, labelled or not, held out or not, are found by randomised passes, and one pass a group takes the
moments along them. Unless the rows span no more directions than that, penalties and shrinkages are chosen on the sketch
(and say so), and a solution takes passes of preconditioned conjugate gradients, which end near 1e-6 or say how far from it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import numpy as np
import pyarrow as pa

from stages.attributes import Column, Floats
from stages.components.over_latents import Fold, OverLatents
from stages.components.principal import Limits, Sketch
from stages.components.subspace import subspace
from stages.directions.row_sets import Group, RowSetPass, parts_of
from stages.moments import Moments
from stages.rows import read_blocks
from stages.scatter.conjugate import MAX_ITERATIONS, TRIED_ITERATIONS, Solved, by_passes
from stages.scatter.sketched import Along, Frame, Sketched
from stages.scatter.strips import Strips, in_strips, together
from stages.scatter.whole import Whole
from stages.stage import Passes, ReduceStage

MAX_SKETCHED = 256
"""Directions of a sketch; fewer where their block of numbers would be too large."""
SKETCH_PASSES = 4

Scatter = Whole | Strips | Sketched


@dataclass(frozen=True, slots=True)
class Subset:
    """Rows of some parts of a group: their statistic, of whose Σzzᵀ the diagonal counts, and Σzzᵀ as `scatter`.

    `multiply`: Σzzᵀ·columns by a pass, in the coordinates of a sketch; None where `scatter` is all there is to know.
    """

    moments: Moments
    scatter: Scatter
    multiply: Callable[[Floats], Passes[Any, Floats]] | None = None

    def solve(self, rhs: Floats, shifts: Floats, *, unit: Floats | float = 1.0) -> Passes[Any, Solved]:
        """x (1, d, m) of (D⁻¹ΣzzD⁻¹ + σI)x = b for every column b of `rhs` (d, m) and its shift σ (m,); D is diag(unit),
        `unit` (d, m) or 1. A sketch has a unit of its own.
        """
        match self.scatter:
            case Strips():
                return self.scatter.solve(rhs, shifts[None], unit=unit, iterations=MAX_ITERATIONS)
            case Sketched() if self.multiply and self.scatter.rest:
                sketch = self.scatter
                return (yield from by_passes(self.multiply, lambda r: sketch.solve(r, shifts[None]).x[0], rhs, shifts))
            case _:
                return self.scatter.solve(rhs, shifts[None])

    def tried(self, rhs: Floats, shifts: Floats) -> Solved:
        """x (s, d, m) of (Σzz + σI)x = b for every column b of `rhs` (d, m) and every σ of `shifts` (s,): without a pass, so in
        strips where few iterations reach it, and of a sketch as it is.
        """
        every = np.repeat(shifts[:, None], rhs.shape[1], axis=1)
        if isinstance(self.scatter, Strips):
            return self.scatter.solve(rhs, every, iterations=TRIED_ITERATIONS)
        return self.scatter.solve(rhs, every)


@dataclass(frozen=True)
class GroupScatter:
    """A group and what is known of Σzzᵀ of its parts; `subset` makes that of some of them, whose statistic is given, to be solved
    or only to be multiplied with.
    """

    group: Group
    subset: Callable[[Sequence[int], Moments, bool], Subset]

    def of(self, parts: Sequence[int], *, solved: bool = True) -> Subset:
        """The rows of `parts`, at least one. Made anew at every call: it may be hundreds of megabytes, less if not to be `solved`."""
        return self.subset(parts, self.group.merged(parts), solved)


@dataclass(frozen=True)
class PartsPass:
    """A reduce stage: a fold of latents for each of some `parts` of the rows that know `column`; the state is a list of theirs."""

    column: Column
    fold: Fold[Any]
    parts: tuple[int, ...]
    holdout: float
    folds: int

    def start(self) -> list[Any]:
        return [self.fold.start() for _ in self.parts]

    def add(self, state: list[Any], batch: pa.RecordBatch) -> list[Any]:
        for block in read_blocks(batch, (self.column,), holdout=self.holdout):
            of = np.where(block.known[:, 0], parts_of(block, self.folds), -1)
            for i, part in enumerate(self.parts):
                rows = block.latents[of == part]
                if len(rows):
                    state[i] = self.fold.add(state[i], rows, rows)
        return state

    def merge(self, a: list[Any], b: list[Any]) -> list[Any]:
        return [self.fold.merge(x, y) for x, y in zip(a, b, strict=True)]


def frame_of(everything: Moments, unit: Floats, limits: Limits) -> Passes[Any, Frame]:
    """The strongest directions of all rows, coordinates measured in `unit` (d,)."""
    dim = everything.dim
    # The finder works on a quarter more columns than it gives.
    count = max(1, min(MAX_SKETCHED, limits.block_values // dim * 4 // 5))
    found = yield from subspace(
        lambda columns: OverLatents(Sketch(everything.z_mean, columns, unit)),
        lambda counted: counted.state,
        dim=dim,
        count=min(count, dim),
        seed=0,
        passes=SKETCH_PASSES,
    )
    return Frame(everything.z_mean, unit, np.ascontiguousarray(found.vectors.T))


def scatter_of(
    group: Group, stage: RowSetPass, *, centre: Floats, limits: Limits, frame: Frame | None
) -> Passes[Any, GroupScatter]:
    """By as many passes as it takes. `stage`: the pass that made the group; `centre` (d,) lies near its rows; `frame`: of a sketch."""
    if stage.full:
        return GroupScatter(group, lambda parts, moments, solved: Subset(moments, Whole(moments.zz)))
    # Columns of a group are known on the same rows, so one tells for all.
    over = partial(PartsPass, stage.columns[group.members[0]], holdout=stage.holdout, folds=stage.folds)
    at = {part: i for i, part in enumerate(group.every)}
    if frame is not None:
        along: list[Moments] = yield over(Along(frame), group.every)
        return GroupScatter(
            group,
            lambda parts, moments, solved: _sketched(
                moments, [along[at[p]] for p in parts], frame, partial(over, parts=parts)
            ),
        )
    block_values = max(1, limits.block_values // max(len(group.every), 1))
    strips = yield from in_strips(partial(over, parts=group.every), list, centre=centre, block_values=block_values)

    def put_together(parts: Sequence[int], moments: Moments, solved: bool) -> Subset:
        found = together([strips[at[p]] for p in parts], n=moments.n, shift=moments.z_mean - centre)
        return Subset(moments, Whole(found.dense(), own=True) if solved and moments.dim <= limits.full else found)

    return GroupScatter(group, put_together)


def _sketched(
    moments: Moments, along: Sequence[Moments], frame: Frame, over: Callable[[Fold[Any]], ReduceStage[Any]]
) -> Subset:
    """`along`: moments along the frame of the parts whose statistic is `moments`; `over` makes the reduce stage of a fold."""
    shift = (moments.z_mean - frame.centre) / frame.unit

    def multiply(columns: Floats) -> Passes[Any, Floats]:
        images: list[Floats] = yield over(Sketch(frame.centre, columns, frame.unit))
        return np.asarray(sum(images) - np.outer(moments.n * shift, shift @ columns))

    inside = reduce(Moments.merged, along).zz
    trace = float((moments.squares / frame.unit**2).sum())
    return Subset(moments, Sketched(frame, inside, trace), multiply)
