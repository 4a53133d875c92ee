"""Ridge regression of each label on the latents, from second moments alone (latent-science §3).

w = (Σzz + λI)⁻¹Σzy minimises Σ(y − b − w·z)² + λ‖w‖², scikit-learn's Ridge with alpha = λ. Without a given λ the best of
`PENALTIES` × tr(Σzz)/d is taken, by the squared error of rows that were left out, fold by fold: a fold's error is a
quadratic form of its own moments, so no row is read again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from stages.attributes import Floats
from stages.directions.row_sets import Group
from stages.moments import Moments

PENALTIES = tuple(10.0 ** (k / 2) for k in range(-12, 7))
"""Tried penalties, as shares of the latents' mean scatter tr(Σzz)/d."""
RANK_TOLERANCE = 1e-12
"""Eigenvalues of Σzz + λI below this share of the largest count as zero; along them the least w is taken."""


@dataclass(frozen=True, slots=True)
class Ridged:
    """`coefficients` and `standard_error` (d, m), `intercept` and `l2` (m,) of m labels; `cv_folds` chose l2, or 0."""

    coefficients: Floats
    standard_error: Floats
    intercept: Floats
    l2: Floats
    cv_folds: int
    at_edge: np.ndarray
    rank: int


@dataclass(frozen=True, slots=True)
class _Spectrum:
    """Eigenvalues (d,) and vectors (d, d) of Σzz, and Σzy (d, m) in them."""

    values: Floats
    vectors: Floats
    zy: Floats

    @classmethod
    def of(cls, moments: Moments) -> "_Spectrum":
        values, vectors = np.linalg.eigh(moments.zz)
        return cls(np.maximum(values, 0), vectors, vectors.T @ moments.zy)

    def inverse(self, l2: Floats) -> Floats:
        """1/(eigenvalue + l2), 0 where that is nothing; l2 (m,) → (d, m)."""
        sums = self.values[:, None] + l2
        kept = sums > RANK_TOLERANCE * max(float(self.values[-1]), 1e-300)
        return np.asarray(np.where(kept, 1 / np.where(kept, sums, 1.0), 0.0))

    def solve(self, l2: Floats) -> Floats:
        """Coefficients (d, m)."""
        return np.asarray(self.vectors @ (self.inverse(l2) * self.zy))


def ridge(group: Group, *, l2: float | None) -> tuple[Ridged, Ridged | None]:
    """Fits of all rows and of the training rows, None where there are fewer than two of those. The penalty is the same.

    It is chosen on training rows alone, so that held-out rows know nothing of it.
    """
    together, training = group.together, group.training
    if l2 is not None:
        chosen, folds, edge = np.full(len(group.members), l2), 0, np.zeros(len(group.members), bool)
    else:
        parts = [p for p in group.parts[:-1] if p.n]
        chosen, edge = choose_penalty(parts, scale=_scale(training if training.n > 1 else together))
        folds = len(parts)
    stored = _fitted(together, chosen, folds, edge)
    if group.parts[-1].n == 0:
        return stored, stored
    return stored, _fitted(training, chosen, folds, edge) if training.n > 1 else None


def choose_penalty(parts: Sequence[Moments], *, scale: float) -> tuple[Floats, np.ndarray]:
    """The best penalty of every label by leaving out one part after the other, and whether it lies at the grid's edge."""
    grid = np.array(PENALTIES) * scale
    width = parts[0].zy.shape[1] if parts else 0
    error = np.zeros((len(grid), width))
    for i, left_out in enumerate(parts):
        others = [*parts[:i], *parts[i + 1 :]]
        if not others or (rest := reduce(Moments.merged, others)).n < 2:
            continue
        spectrum = _Spectrum.of(rest)
        for g, penalty in enumerate(grid):
            error[g] += squared_error(spectrum.solve(np.full(width, penalty)), rest, left_out)
    best = np.argmin(error, axis=0)
    return grid[best], (best == 0) | (best == len(grid) - 1)


def squared_error(coefficients: Floats, fitted_on: Moments, rows: Moments) -> Floats:
    """Σ(y − ŷ)² over `rows`, (m,), of the regressions (d, m) whose means are those of `fitted_on`."""
    shift = (rows.y_mean - fitted_on.y_mean) - (rows.z_mean - fitted_on.z_mean) @ coefficients
    inside = np.diagonal(rows.yy) - 2 * np.einsum("dm,dm->m", coefficients, rows.zy)
    inside = inside + np.einsum("dm,dm->m", coefficients, rows.zz @ coefficients)
    return np.asarray(np.maximum(inside, 0) + rows.n * shift**2)


def _scale(moments: Moments) -> float:
    return float(np.trace(moments.zz)) / moments.dim or 1.0


def _fitted(moments: Moments, l2: Floats, folds: int, edge: np.ndarray) -> Ridged:
    spectrum = _Spectrum.of(moments)
    inverse, w = spectrum.inverse(l2), spectrum.solve(l2)
    kept = spectrum.values[:, None] * inverse
    freedom = np.maximum(moments.n - kept.sum(0) - 1, 1.0)
    noise = squared_error(w, moments, moments) / freedom
    return Ridged(
        coefficients=w,
        standard_error=np.sqrt(spectrum.vectors**2 @ (kept * inverse) * noise),
        intercept=moments.y_mean - moments.z_mean @ w,
        l2=l2,
        cv_folds=folds,
        at_edge=edge,
        rank=int((inverse[:, 0] > 0).sum()),
    )
