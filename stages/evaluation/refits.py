"""How much a leak would differ had the directions been fitted on other images: both fits repeated under bootstrap weights.

A direction acts on scores through their gradient g, found by regressing unedited scores on latents. So it is enough to fit
the projections g·z: the difference of means and the least squares of a few numbers a row, each in closed form from weighted
sums of products, and never a whole direction. One pass, all replicates, exact where scores are linear in latents.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from stages.attributes import Column, Floats
from stages.bootstrap import poisson_weights
from stages.evaluation.effects import group_hashes
from stages.moments import Moments
from stages.rows import read_blocks

MAX_DIM = 1024
ROWS_PER_DIM = 2
"""A gradient of d numbers asks for so many rows times d."""
PRODUCTS = 2**22


def gradient(response: Moments) -> Floats | None:
    """(J, d) from the moments of latents and scores; None with too few rows for it."""
    if response.n < ROWS_PER_DIM * response.dim + 2:
        return None
    ridge = 1e-9 * float(np.trace(response.zz)) / response.dim
    return np.asarray(np.linalg.solve(response.zz + ridge * np.eye(response.dim), response.zy).T)


@dataclass(frozen=True, eq=False)
class Refit:
    """A reduce stage: for every replicate Σw uuᵀ of u = (1, labels, projections), over rows that know every column.

    `gradient` (J, d) and `columns` of the same attributes, in the same order.
    """

    columns: tuple[Column, ...]
    gradient: Floats
    centre: Floats
    replicates: int
    seed: int
    group: str | None

    def start(self) -> Floats:
        width = 1 + 2 * len(self.columns)
        return np.zeros((1 + self.replicates, width, width))

    def add(self, state: Floats, batch: pa.RecordBatch) -> Floats:
        for block in read_blocks(batch, self.columns, holdout=0.0):
            chosen = np.flatnonzero(block.known.all(axis=1))
            weights = poisson_weights(group_hashes(block, self.group)[chosen], self.replicates, seed=self.seed)
            weights = np.column_stack([np.ones(len(chosen)), weights]).astype(np.float64)
            projected = (block.latents[chosen] - self.centre) @ self.gradient.T
            u = np.column_stack([np.ones(len(chosen)), block.values[chosen], projected])
            step = max(1, PRODUCTS // u.shape[1] ** 2)
            for start in range(0, len(u), step):
                part = u[start : start + step]
                products = (part[:, :, None] * part[:, None]).reshape(len(part), -1)
                state += (weights[start : start + step].T @ products).reshape(state.shape)
        return state

    def merge(self, a: Floats, b: Floats) -> Floats:
        return a + b


@dataclass(frozen=True, eq=False)
class Refits:
    """What the fits of every replicate do to the projections: (1 + replicates, label, score)."""

    plain: Floats
    balanced: Floats

    @classmethod
    def of(cls, sums: Floats, columns: int) -> "Refits":
        n = sums[:, 0, 0, None, None]
        labels, scores = slice(1, 1 + columns), slice(1 + columns, None)
        y, x = sums[:, 0, labels], sums[:, 0, scores]
        with np.errstate(divide="ignore", invalid="ignore"):
            positive = sums[:, labels, scores] / y[:, :, None]
            negative = (x[:, None] - sums[:, labels, scores]) / (n - y[:, :, None])
            yy = sums[:, labels, labels] - y[:, :, None] * y[:, None] / n
            yx = sums[:, labels, scores] - y[:, :, None] * x[:, None] / n
        usable = np.isfinite(yy).all(axis=(1, 2)) & np.isfinite(yx).all(axis=(1, 2))
        balanced = np.full_like(yx, np.nan)
        # The pseudo-inverse: a replicate that drew one class only has no answer for it, and must not stop the others.
        balanced[usable] = np.linalg.pinv(yy[usable], hermitian=True) @ yx[usable]
        return cls(positive - negative, balanced)

    def leaks(self, target: int, other: int) -> tuple[Floats, Floats]:
        """(1 + replicates,) of both kinds: what moves `other` over what moves `target`, in score units."""
        with np.errstate(divide="ignore", invalid="ignore"):
            plain = self.plain[:, target, other] / self.plain[:, target, target]
            balanced = self.balanced[:, target, other] / self.balanced[:, target, target]
        return plain, balanced
