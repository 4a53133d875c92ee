"""Second moments as a whole matrix in memory: solved by its spectrum, exact on its rank, with the estimates' spread."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import eigh

from stages.scatter.conjugate import Solved
from stages.scatter.strips import Floats

RANK_TOLERANCE = 1e-12
"""Eigenvalues below this share of the largest count as zero; along them the least solution is taken."""


def inverse(values: Floats, shifts: Floats) -> Floats:
    """1/(value + shift), 0 where that is nothing; values (k,) and shifts (m,) → (k, m)."""
    sums = values[:, None] + shifts
    kept = sums > RANK_TOLERANCE * max(float(values.max(initial=0)), 1e-300)
    return np.asarray(np.where(kept, 1 / np.where(kept, sums, 1.0), 0.0))


@dataclass(frozen=True)
class Whole:
    """A symmetric matrix (d, d) ≥ 0. `own`: nobody else holds it, so its spectrum may take its place in memory."""

    matrix: Floats
    own: bool = False
    note = ""

    @cached_property
    def spectrum(self) -> tuple[Floats, Floats]:
        """Eigenvalues (d,), ascending and not negative, and vectors in columns (d, d)."""
        # Transposed, it is in LAPACK's order: no copy.
        values, vectors = eigh(self.matrix.T, overwrite_a=self.own, check_finite=False, driver="evd")
        return np.maximum(values, 0), vectors

    def __matmul__(self, columns: Floats) -> Floats:
        """(d, m) → (d, m)."""
        if not self._overwritten:
            return np.asarray(self.matrix @ columns)
        values, vectors = self.spectrum
        return np.asarray(vectors @ (values[:, None] * (vectors.T @ columns)))

    @property
    def _overwritten(self) -> bool:
        return self.own and "spectrum" in vars(self)

    def solve(self, rhs: Floats, shifts: Floats) -> Solved:
        """x (s, d, m) of (S + σI)x = b for every column b of `rhs` (d, m) and its shifts σ (s, m)."""
        values, vectors = self.spectrum
        inside = vectors.T @ rhs
        found = np.stack([vectors @ (inverse(values, shift) * inside) for shift in shifts])
        return Solved(found, np.zeros(shifts.shape))

    def squared_norm(self, unit: Floats) -> float:
        """Σ of the squares of D⁻¹SD⁻¹, D = diag(unit), `unit` (d,). To be asked before the spectrum."""
        assert not self._overwritten
        weight = 1 / unit**2
        return float(weight @ self.matrix**2 @ weight)

    def spread(self, shifts: Floats) -> tuple[Floats, Floats]:
        """Of (S + σI)⁻¹S(S + σI)⁻¹ the diagonal (d, m), and the trace of S(S + σI)⁻¹ (m,), for every σ of `shifts` (m,)."""
        values, vectors = self.spectrum
        solved = inverse(values, shifts)
        kept = values[:, None] * solved
        return np.asarray(vectors**2 @ (kept * solved)), np.asarray(kept.sum(0))

    def rank(self, shift: float) -> int:
        """How many eigenvalues of S + shift·I are not zero."""
        return int((inverse(self.spectrum[0], np.array([shift])) > 0).sum())
