"""Rows of two latents of the same image as one row, [x | y]: their joint moments and a sample of them, in one pass.

Held-out rows, by hash of the id, are kept apart: what is fitted on the others is judged on them.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from stages.attributes import Floats
from stages.moments import Moments
from stages.rows import read_blocks
from stages.sample import Sample

MAX_DIM = 4096
"""Of both latents together: their joint scatter is kept whole."""


@dataclass(slots=True)
class Pairs:
    """State: moments of [x | y] of the training and of the held-out rows, and a sample of rows."""

    train: Moments
    held_out: Moments
    sample: Sample
    non_finite: int = 0


@dataclass(frozen=True)
class Pairing:
    """A reduce stage over batches with `id` and `latent`, the x of `dim` numbers and the y of `other` behind it."""

    dim: int
    other: int
    holdout: float

    def start(self) -> Pairs:
        width = self.dim + self.other
        return Pairs(Moments.empty(width, full=True), Moments.empty(width, full=True), Sample.empty(width, columns=0))

    def add(self, state: Pairs, batch: pa.RecordBatch) -> Pairs:
        for block in read_blocks(batch, (), holdout=self.holdout):
            state.train.absorb(Moments.of(block.latents[~block.held_out], full=True))
            state.held_out.absorb(Moments.of(block.latents[block.held_out], full=True))
            state.sample.add(block)
            state.non_finite += block.non_finite
        return state

    def merge(self, a: Pairs, b: Pairs) -> Pairs:
        return Pairs(
            a.train.merged(b.train),
            a.held_out.merged(b.held_out),
            a.sample.merged(b.sample),
            a.non_finite + b.non_finite,
        )


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
