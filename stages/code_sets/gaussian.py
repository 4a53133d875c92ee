"""The Gaussian of the data, from one pass: draws, and distances in its covariance.

N(μ, Σ), Σ full or its diagonal. Draws are μ + Rξ with R the symmetric square root of Σ, which exists for a singular Σ too; the
Mahalanobis distance is ‖R⁻¹(z − μ)‖, which does not. Every row is worked on by itself, so a row's last bits do not depend on
the batch it is in.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from schemas.errors import JobError
from stages.moments import Moments

Array = npt.NDArray[np.float64]

FULL_DIM = 4096
"""Above this dimension a covariance is its diagonal: d² numbers would not fit beside the work."""
SINGULAR = 1e-12
"""Eigenvalues below this share of the largest count as zero."""


@dataclass(frozen=True, eq=False)
class Gaussian:
    """`mean` (d,); `root` (d, d) symmetric, or (d,) for a diagonal covariance: Σ = root². `low` is Σ's smallest eigenvalue over its largest."""

    mean: Array
    root: Array
    low: float

    @classmethod
    def standard(cls, dim: int) -> Self:
        """N(0, I)."""
        return cls(np.zeros(dim), np.ones(dim), 1.0)

    @classmethod
    def of(cls, moments: Moments, *, at: str) -> Self:
        """Of the rows in `moments`, Σ divided by n − 1. Raises JobError for fewer than two rows; `at` names the step in it."""
        if moments.n < 2:
            fix = "encode more images, or loosen the filter"
            reason = f"a covariance needs two rows with finite latents; there are {moments.n}."
            raise JobError.one(at, None, reason, fix)
        if moments.zz.ndim == 1:
            variance = moments.z_variance
            return cls(moments.z_mean, np.sqrt(variance), _share(variance))
        values, vectors = np.linalg.eigh(moments.zz / (moments.n - 1))
        root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
        return cls(moments.z_mean, root, _share(values))

    @property
    def singular(self) -> bool:
        """Whether the rows do not fill the space, so that distances are infinite in some directions."""
        return self.low < SINGULAR

    def spread(self, noise: Array) -> Array:
        """Rξ for rows ξ (n, d): deviations with covariance Σ."""
        return _each(self.root, noise)

    def inverse_root(self) -> Array:
        """R⁻¹, (d, d) or (d,). Only where the Gaussian is not `singular`."""
        return np.asarray(1 / self.root if self.root.ndim == 1 else np.linalg.inv(self.root))


def _share(values: Array) -> float:
    largest = float(values.max(initial=0.0))
    return float(max(values.min(initial=np.inf), 0.0)) / largest if largest > 0 else 0.0


def _each(matrix: Array, rows: Array) -> Array:
    """matrix · row for every row (n, d); a matrix of one dimension is a diagonal."""
    if matrix.ndim == 1:
        return np.asarray(matrix * rows)
    # One product a row, always of the same size: a product of the whole batch would round by the batch's length.
    return np.stack([matrix @ row for row in rows]) if len(rows) else np.zeros(rows.shape)
