"""The second pass of a comparison: each image's two latents laid over each other, and the angle between them.

Summed up over the held-out images; `row_cosines` is for every image. The terms of CKA's interval, of all images, come along.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.attributes import Bools, Floats
from stages.bootstrap import poisson_weights
from stages.comparison.alignment import Alignment
from stages.comparison.cka_terms import cka_terms
from stages.comparison.paired import Joint
from stages.moments import Moments
from stages.rows import latent_blocks, read_blocks

BINS = 200
"""Of the cosine, from −1 to 1."""


@dataclass(slots=True)
class Cosines:
    """`sums` (1 + replicates, 4): weight, Σcos, Σ‖residual‖², Σ‖x − μ_x‖²; `histogram` (BINS,). `no_angle`: rows at a mean.

    `terms`: of all rows (`cka_terms`).
    """

    sums: Floats
    histogram: npt.NDArray[np.int64]
    terms: Moments
    no_angle: int = 0


@dataclass(frozen=True, eq=False)
class RowCosines:
    """A reduce stage over the same batches as `Pairing`, whose rows together have the moments `everything`."""

    alignment: Alignment
    everything: Joint
    holdout: float
    replicates: int
    seed: int

    def start(self) -> Cosines:
        return Cosines(np.zeros((1 + self.replicates, 4)), np.zeros(BINS, np.int64), Moments.empty(6, full=True))

    def add(self, state: Cosines, batch: pa.RecordBatch) -> Cosines:
        dim = len(self.alignment.x_mean)
        for block in read_blocks(batch, (), holdout=self.holdout):
            rows, both = block.held_out, block.latents.astype(np.float64)
            state.terms.absorb(cka_terms(both, self.everything))
            both = both[rows]
            x, y = both[:, :dim] - self.alignment.x_mean, self.alignment(both[:, dim:])
            cosine, angled = _cosines(x, y)
            weights = poisson_weights(block.hashes[rows], self.replicates, seed=self.seed)
            weighted = np.column_stack([np.ones(len(x)), weights]).astype(np.float64)
            features = np.column_stack([angled, cosine, ((x - y) ** 2).sum(axis=1), (x**2).sum(axis=1)])
            state.sums += weighted.T @ features
            bins = np.clip(((cosine[angled] + 1) / 2 * BINS).astype(np.int64), 0, BINS - 1)
            state.histogram += np.bincount(bins, minlength=BINS)
            state.no_angle += int((~angled).sum())
        return state

    def merge(self, a: Cosines, b: Cosines) -> Cosines:
        terms = a.terms.merged(b.terms)
        return Cosines(a.sums + b.sums, a.histogram + b.histogram, terms, a.no_angle + b.no_angle)


def row_cosines(batch: pa.RecordBatch, alignment: Alignment) -> pa.FloatArray:
    """The cosine of each row of a batch with `latent` = [x | y], y laid over x; null without a finite latent of both, or at a mean."""
    dim = len(alignment.x_mean)
    parts = []
    for latents, finite in latent_blocks(batch):
        both = latents.astype(np.float64)
        cosine, angled = _cosines(both[:, :dim] - alignment.x_mean, alignment(both[:, dim:]))
        spread = np.full(len(finite), np.nan)
        spread[finite] = np.where(angled, cosine, np.nan)
        parts.append(spread)
    found = np.concatenate(parts) if parts else np.zeros(0)
    return pa.array(found.astype(np.float32), mask=np.isnan(found))


def _cosines(x: Floats, y: Floats) -> tuple[Floats, Bools]:
    """(n,) each: the cosines, 0 where there is no angle, and where there is one."""
    product = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    angled = product > 0
    return np.where(angled, (x * y).sum(axis=1) / np.where(angled, product, 1.0), 0.0), angled
