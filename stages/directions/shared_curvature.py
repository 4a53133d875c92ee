"""One curvature for all problems of a logistic fit, where one matrix a problem is too much memory.

The shared matrix is Σ q̄ x xᵀ with q̄ the mean second derivative over problems; a problem's own is taken to be this one times its
share of Σq, and L-BFGS learns the rest. It comes of all rows by a pass of its own. A sample's spectrum stands in where even one
matrix is too large, and where a sample is all there is; a sample of fewer rows than coefficients tells little of the others.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.attributes import Column
from stages.directions.curvature import estimated_hessian
from stages.directions.logistic_pass import class_signs
from stages.directions.losses import Loss
from stages.directions.newton import Floats
from stages.rows import read_blocks

ROWS_A_COEFFICIENT = 32
"""Of the pass: the matrix differs from a problem's own more than its rows' noise."""
FLOOR = 1e-6
"""Of the mean eigenvalue: below it, sums of float32 products are rounding."""


class SharedCurvature:
    """Solves with one spectrum for all problems."""

    def __init__(
        self, units: Floats, along: Floats, vectors: Floats, across: Floats, rows: Floats, penalty: Floats
    ) -> None:
        """Of the latents in `units` (d,): eigenvalues `along` (r, problems) of `vectors` (d, r), and `across` (problems,) of what is
        orthogonal to them; `rows` (problems,): Σq; `penalty`: its mean over coordinates in these units.
        """
        self._units, self._vectors = units, vectors
        self._along, self._across, self._intercept = along + penalty, across + penalty, rows

    @classmethod
    def of_rows(cls, hessian: Floats, totals: Floats, penalty: Floats) -> "SharedCurvature":
        """hessian (d, d): Σ q̄ x xᵀ over the whole dataset; totals (problems,): Σq there; penalty (coefficients,)."""
        # A penalty is alike in the latents' own units. Without one, units of one size keep the digits of small coordinates.
        units = np.ones(len(hessian))
        if not penalty[:-1].any():
            units = np.maximum(np.sqrt(np.diagonal(hessian)), 1e-30)
            hessian = hessian / np.outer(units, units)
        values, vectors = np.linalg.eigh(hessian)
        values = np.maximum(values, FLOOR * values.mean())
        shares = totals / totals.mean()
        return cls(
            units, np.outer(values, shares), vectors, FLOOR * values.mean() * shares, totals, penalty[:-1].mean()
        )

    @classmethod
    def of_sample(
        cls, latents: npt.NDArray[Any], q: npt.NDArray[Any], penalty: Floats, *, scale: float
    ) -> "SharedCurvature":
        """latents (rows, d) centred and q (rows, problems) of a sample; penalty (coefficients,); `scale`: all rows ÷ sampled rows."""
        x = latents.astype(np.float64)
        m, d = x.shape
        units = np.maximum(np.sqrt((x * x).mean(0)), 1e-30)
        x /= units
        values, vectors = _spectrum(x)
        shrink = d / (d + m) if scale > 1 else FLOOR  # all rows need no guess at what others would add
        rows = scale * q.sum(0, dtype=np.float64)
        along = np.outer((1 - shrink) * values + shrink, rows)
        return cls(units, along, vectors, shrink * rows, rows, (penalty[:-1] / units**2).mean())

    def solve(self, gradients: Floats, of: npt.NDArray[np.int64]) -> Floats:
        """gradients (coefficients, any number) → approximate inverse Hessian × gradient, each of problem `of[i]`."""
        scaled = gradients[:-1] / self._units[:, None]
        inside = self._vectors.T @ scaled
        solved = self._vectors @ (inside / self._along[:, of]) + (scaled - self._vectors @ inside) / self._across[of]
        return np.vstack([solved / self._units[:, None], gradients[-1] / self._intercept[of]])


@dataclass(slots=True)
class SharedSums:
    """hessian (d, d): Σ q̄ x xᵀ; totals (columns,): Σq of each column."""

    hessian: Floats
    totals: Floats


@dataclass(frozen=True)
class SharedCurvaturePass:
    """A reduce stage over batches with `id`, `latent` and `labels`: the shared curvature of all `columns` at `weights`
    (d + 1, columns), which belong to latents less `centre` (d,). `expected`: about how much Σq̄ over all rows is.
    """

    columns: tuple[Column, ...]
    weights: Floats
    centre: Floats
    holdout: float
    loss: Loss
    expected: float

    def start(self) -> SharedSums:
        d = len(self.centre)
        return SharedSums(np.zeros((d, d)), np.zeros(len(self.columns)))

    def add(self, state: SharedSums, batch: pa.RecordBatch) -> SharedSums:
        w = self.weights.astype(np.float32)
        for block in read_blocks(batch, self.columns, holdout=self.holdout):
            x = np.subtract(block.latents, self.centre, dtype=np.float32)
            signs = class_signs(block.values > 0.5, block.known, np.float32)
            q = self.loss.curvature((w[:-1].T @ x.T + w[-1, :, None]) * signs) * (signs != 0)
            state.totals += q.sum(1, dtype=np.float64)
            state.hessian += estimated_hessian(
                x, q.mean(0), block.hashes, total=self.expected, rows=ROWS_A_COEFFICIENT
            )[:-1, :-1]
        return state

    def merge(self, a: SharedSums, b: SharedSums) -> SharedSums:
        return SharedSums(a.hessian + b.hessian, a.totals + b.totals)

    def curvature(self, sums: SharedSums, penalty: Floats) -> SharedCurvature:
        """penalty (coefficients,): the weight of ½w² beside the losses."""
        return SharedCurvature.of_rows(sums.hessian, np.maximum(sums.totals, 1e-30), penalty)


def _spectrum(x: Floats) -> tuple[Floats, Floats]:
    """Eigenvalues (r,) and vectors (d, r) of xᵀx/m, through the smaller of the two Gram matrices."""
    m, d = x.shape
    if d <= m:
        values, vectors = np.linalg.eigh(x.T @ x / m)
        return np.maximum(values, 0), vectors
    values, left = np.linalg.eigh(x @ x.T / m)
    kept = values > 1e-10 * values[-1]
    return values[kept], x.T @ left[:, kept] / np.sqrt(m * values[kept])
