"""The leading eigenvectors of a symmetric matrix, and what is known of how exact they are.

The sign of an eigenvector is arbitrary; here its coefficient of largest absolute value is positive (the first one where
several are), which is scikit-learn's rule for components too.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import scipy.linalg

Floats = npt.NDArray[np.float64]

RANK_EIGENVALUE = 1e-12
"""Eigenvalues below this share of the largest count as zero: the rounding of sums in float64 is of that order."""


@dataclass(frozen=True, slots=True)
class Eigen:
    """`values` (k,) descending and `vectors` (k, p) of unit length. `residuals` (k,): ‖Mv − λv‖ where they are not exact to
    rounding, else zeros; an eigenvalue of M lies within its residual of each value.
    """

    values: Floats
    vectors: Floats
    residuals: Floats

    @classmethod
    def of(cls, values: Floats, vectors: Floats, *, residuals: Floats | None = None) -> "Eigen":
        """From `vectors` in columns (p, k), in any order."""
        order = np.argsort(values)[::-1]
        rows = np.ascontiguousarray(vectors.T[order])
        left = np.zeros(len(order)) if residuals is None else residuals[order]
        return cls(values[order], signed(rows), left)

    @property
    def rank(self) -> int:
        """How many of the values are more than rounding."""
        return int((self.values > RANK_EIGENVALUE * max(float(self.values[0]), 0.0)).sum()) if len(self.values) else 0

    def first(self, count: int) -> "Eigen":
        return replace(self, values=self.values[:count], vectors=self.vectors[:count], residuals=self.residuals[:count])

    def scaled(self, factor: float) -> "Eigen":
        """Of the matrix times `factor` > 0."""
        return replace(self, values=self.values * factor, residuals=self.residuals * factor)


def leading(matrix: Floats, count: int) -> Eigen:
    """The `count` largest eigenvalues of a symmetric matrix (p, p), by LAPACK, exact to rounding. Overwrites the matrix."""
    p = len(matrix)
    count = min(count, p)
    # All of them are cheaper by divide and conquer; a few by one eigenvector each, in half the memory.
    some = {"subset_by_index": (p - count, p - 1), "driver": "evr"} if count <= p // 4 else {"driver": "evd"}
    values, vectors = scipy.linalg.eigh(matrix, overwrite_a=True, check_finite=False, **some)
    return Eigen.of(values[-count:], vectors[:, -count:])


def signed(rows: Floats) -> Floats:
    """The rows (k, p), each with its largest coefficient positive."""
    if not rows.size:
        return rows
    largest = rows[np.arange(len(rows)), np.abs(rows).argmax(axis=1)]
    return np.asarray(rows * np.where(largest < 0, -1.0, 1.0)[:, None])
