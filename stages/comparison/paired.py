"""Rows of two latents of the same image as one row, [x | y]: their joint moments and a sample of them, in one pass.

Held-out rows, by hash of the id, are kept apart: what is fitted on the others is judged on them. Both are kept in groups, by
another hash, so that a number can be had without one of them (stages/jackknife.py).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.attributes import Floats
from stages.moments import Moments
from stages.row_hash import fractions
from stages.rows import Block, read_blocks
from stages.sample import Sample

MAX_DIM = 4096
"""Of both latents together: their joint scatter is kept whole."""
GROUPS, PARTED_VALUES = 20, 2**24
"""Groups that are left out in turn, fewer where their scatters would hold more numbers than this (128 MB)."""
LEAST_GROUPS = 8
MAX_PARTED = int((PARTED_VALUES / LEAST_GROUPS) ** 0.5)
"""Widest pair whose rows are parted at all."""


@dataclass(slots=True)
class Pairs:
    """State: moments of [x | y] by group of rows, a sample of rows. The first `training` groups are those that are fitted on."""

    parts: tuple[Moments, ...]
    training: int
    sample: Sample
    non_finite: int = 0

    @property
    def train(self) -> Moments:
        return _sum(self.parts[: self.training])

    @property
    def held_out(self) -> Moments:
        return _sum(self.parts[self.training :])

    @property
    def together(self) -> Moments:
        return _sum(self.parts)


def _sum(parts: tuple[Moments, ...]) -> Moments:
    if len(parts) == 1:
        return parts[0]
    whole = parts[0].copy()
    for part in parts[1:]:
        whole.absorb(part)
    return whole


@dataclass(frozen=True)
class Pairing:
    """A reduce stage over batches with `id` and `latent`, the x of `dim` numbers and the y of `other` behind it."""

    dim: int
    other: int
    holdout: float

    @property
    def groups(self) -> tuple[int, int]:
        """Of the training and of the held-out rows, all of about one size; (1, 1) where there is no room for more."""
        count = min(GROUPS, PARTED_VALUES // (self.dim + self.other) ** 2)
        if count < LEAST_GROUPS:
            return 1, 1
        held_out = min(max(round(count * self.holdout), 1), count - 1)
        return count - held_out, held_out

    def start(self) -> Pairs:
        width = self.dim + self.other
        parts = tuple(Moments.empty(width, full=True) for _ in range(sum(self.groups)))
        return Pairs(parts, self.groups[0], Sample.empty(width, columns=0))

    def add(self, state: Pairs, batch: pa.RecordBatch) -> Pairs:
        for block in read_blocks(batch, (), holdout=self.holdout):
            part = self._parts(block)
            for p in np.unique(part):
                state.parts[p].absorb(Moments.of(block.latents[part == p], full=True))
            state.sample.add(block)
            state.non_finite += block.non_finite
        return state

    def merge(self, a: Pairs, b: Pairs) -> Pairs:
        return Pairs(
            tuple(one.merged(other) for one, other in zip(a.parts, b.parts, strict=True)),
            a.training,
            a.sample.merged(b.sample),
            a.non_finite + b.non_finite,
        )

    def _parts(self, block: Block) -> npt.NDArray[np.int64]:
        """Which group each row is in (rows,): by hash, rows that belong together in the same."""
        train, held_out = self.groups
        share = fractions(block.groups, "compare groups")
        return np.where(block.held_out, train + (share * held_out).astype(np.int64), (share * train).astype(np.int64))


@dataclass(frozen=True, eq=False)
class Joint:
    """The moments of pairs by block: n, means (d_x,) and (d_y,), scatters `xx`, `yy`, `xy` about the means."""

    n: int
    x_mean: Floats
    y_mean: Floats
    xx: Floats
    yy: Floats
    xy: Floats

    @classmethod
    def of(cls, moments: Moments, dim: int) -> "Joint":
        mean, zz = moments.z_mean, moments.zz
        return cls(moments.n, mean[:dim], mean[dim:], zz[:dim, :dim], zz[dim:, dim:], zz[:dim, dim:])


def marginals(moments: Moments, dim: int) -> tuple[Moments, Moments]:
    """The moments of x alone and of y alone."""

    def part(rows: slice) -> Moments:
        origin, offset = moments.origin[rows], moments.offset[rows]
        width = len(origin)
        return Moments(moments.n, origin, offset, moments.zz[rows, rows], np.zeros((width, 0)), np.zeros((0, 0)))

    return part(slice(0, dim)), part(slice(dim, moments.dim))
