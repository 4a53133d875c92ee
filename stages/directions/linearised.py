"""Fits as roots of Σψ = 0: how each row pulls at a fit, and what a pull moves; for one step (stages/directions/one_step.py).

ridge: ψ = (z − z̄)(y − ŷ), H = Σzz + λI. LDA: the derivatives of class means and of the shrunk covariance by a row's weight,
H = that covariance. Logistic regression and squared-hinge SVM: ψ = minus the gradient of the row's loss, H = the curvature at
the fit; where rows are many that is an estimate from those that carry it (stages/directions/curvature.py). A fit refuses one
step with fewer than `ROWS_A_PARAMETER` rows a coefficient, rows of two classes counted as 4n₊n₋/n.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from stages.attributes import Floats
from stages.directions.direction import Estimate, Evidence
from stages.directions.discriminant import Classes
from stages.directions.losses import Loss
from stages.moments import Moments

ROWS_A_PARAMETER = 4
MIN_LEFT = 1e-6
"""Least root of a coordinate's share that others leave of it; with less, a matrix is as good as singular."""

Solve = Callable[[Floats], Floats]
"""H⁻¹ × (coefficients, any number)."""


class RowScores(Protocol):
    """ψ of rows: latents (rows, d) float32 and labels (rows,) → (rows, k)."""

    def __call__(self, z: np.ndarray, y: Floats) -> Floats: ...


@dataclass(frozen=True, eq=False)
class Linearised:
    """One column's fit, ready for one step. `solve`: Σ(ω − 1)ψ (k, replicates) → changes of the coefficients (d, replicates)."""

    scores: RowScores
    width: int
    solve: Solve
    coefficients: Floats
    parameters: float
    rows: float

    @property
    def refusal(self) -> str | None:
        """Why one step would not do."""
        if self.rows >= ROWS_A_PARAMETER * self.parameters:
            return None
        return (
            f"{self.rows:,.0f} effective rows for {self.parameters:,.0f} coefficients, and one step takes "
            f"{ROWS_A_PARAMETER} a coefficient; label more rows or penalise more"
        )


def effective_rows(evidence: Evidence) -> float:
    """Rows that two classes of equal size would have for the same precision: 4n₊n₋/n; n for a number."""
    if evidence.n_positive is None or evidence.n_negative is None:
        return float(evidence.n)
    return 4 * evidence.n_positive * evidence.n_negative / max(evidence.n, 1)


# ----------------------------------------------------------------------------------------------- ridge


@dataclass(frozen=True, eq=False)
class _Residual:
    """ψ = (z − z̄)(y − ȳ − w·(z − z̄))."""

    z_mean: Floats
    y_mean: float
    coefficients: Floats

    def __call__(self, z: np.ndarray, y: Floats) -> Floats:
        x = z - self.z_mean
        x *= (y - self.y_mean - x @ self.coefficients)[:, None]
        return np.asarray(x)


def linearised_ridge(
    estimate: Estimate, moments: Moments, zz: Floats, label: int, l2: float
) -> Linearised | str | None:
    """Ridge of one label of `moments`, the statistic of rows whose Σzzᵀ is `zz` (d, d): H = Σzz + λI about the mean."""
    if estimate.coefficients is None:
        return None
    d = moments.dim
    inverse = _Inverse(zz, np.full(d, l2))
    parameters = inverse.parameters()
    if parameters is None:
        return "the latents do not span all dimensions; a penalty above 0 steadies it"
    scores = _Residual(moments.z_mean, float(moments.y_mean[label]), estimate.coefficients)
    rows = effective_rows(estimate.evidence)
    return Linearised(scores, d, inverse, estimate.coefficients, 1 + parameters, rows)


# ----------------------------------------------------------------------------------------------- linear discriminants


@dataclass(frozen=True, eq=False)
class _Discriminated:
    """The change that a row's weight makes of (m₊ − m₋) − S w, S the shrunk covariance, x = z − the mean of the row's class:

    ±x/n₊₋ − [kept·(x·w)x + shrunk·target − (m₊ − m₋)]/n, with the target's part (x∘x)w where coordinates are shrunk in units
    of their deviations, and ‖x‖²/d·w in equal units.
    """

    classes: tuple[Floats, Floats]
    n: tuple[int, int]
    coefficients: Floats
    kept: float
    shrunk: float
    own_units: bool

    def __call__(self, z: np.ndarray, y: Floats) -> Floats:
        positive = (y > 0.5)[:, None]
        x = z - np.where(positive, *self.classes)
        total, w = sum(self.n), self.coefficients
        by_class = np.where(positive, 1 / self.n[0], -1 / self.n[1])
        target = x * x * w if self.own_units else np.outer((x * x).mean(1), w)
        gap = self.classes[0] - self.classes[1]
        along = self.kept * (x @ w)[:, None]
        return np.asarray(x * (by_class - along / total) - (self.shrunk * target - gap) / total)


def linearised_discriminant(
    estimate: Estimate, classes: Classes, zz: Floats, *, shrinkage: float, own_units: bool
) -> Linearised | str | None:
    """w = S⁻¹(m₊ − m₋), S = (1 − s)Σ_W + s·target, as `stages.directions.discriminant` has it; `zz` (d, d): Σzzᵀ of the rows."""
    coefficients = estimate.coefficients
    if coefficients is None:
        return None
    d, varying = len(coefficients), np.count_nonzero(classes.scatter) / len(coefficients)
    unit = classes.deviation if own_units else np.ones(d)
    target = unit**2 * classes.mean_variance(unit)
    inverse = _Inverse(zz, shrinkage * target, (1 - shrinkage) / classes.total, classes.bond, classes.along)
    parameters = inverse.parameters()
    if parameters is None:
        return "the latents do not span all dimensions within classes; shrinkage above 0 steadies it"
    means, shrunk = (classes.positive, classes.negative), shrinkage * varying if own_units else shrinkage
    scores = _Discriminated(means, classes.n, coefficients, 1 - shrinkage, shrunk, own_units)
    return Linearised(scores, d, inverse, coefficients, 1 + parameters, effective_rows(estimate.evidence))


# ----------------------------------------------------------------------------------------------- margins


@dataclass(frozen=True, eq=False)
class _Margin:
    """ψ = −s·ℓ′(s(w·x + b))·(x, 1), x = z − centre: minus the gradient of a row's loss. `weights` (d + 1,), b last."""

    centre: Floats
    weights: Floats
    loss: Loss

    def __call__(self, z: np.ndarray, y: Floats) -> Floats:
        sign = np.where(y > 0.5, 1.0, -1.0)
        x = np.empty((len(z), len(self.weights)))
        np.subtract(z, self.centre, out=x[:, :-1])
        x[:, -1] = 1
        x *= (-sign * self.loss.derivative(sign * (x @ self.weights)))[:, None]
        return x


def linearised_margin(
    weights: Floats, centre: Floats, loss: Loss, *, solve: Solve, parameters: float, evidence: Evidence
) -> Linearised:
    """Logistic regression or a squared-hinge SVM. `weights` (d + 1,) about `centre`; `solve` with the curvature of the sum."""
    return Linearised(
        scores=_Margin(centre, weights, loss),
        width=len(weights),
        solve=lambda total: solve(total)[:-1],
        coefficients=weights[:-1],
        parameters=parameters,
        rows=effective_rows(evidence),
    )


@dataclass(frozen=True, eq=False)
class _Inverse:
    """Products with the inverse of scale·(Σzz − bond·along·alongᵀ) + diag(added).

    Factored anew at every call: columns share Σzz, and one more matrix a column would not fit in memory.
    """

    zz: Floats
    added: Floats
    scale: float = 1.0
    bond: float = 0.0
    along: Floats | None = None

    def __call__(self, b: Floats) -> Floats:
        solve = self._factored()
        assert solve is not None, "factored when it was made"
        return solve(b)

    def parameters(self) -> float | None:
        """Effective number of coefficients, the trace of what of the inverse's product is not `added`; None where it has no inverse."""
        solve = self._factored()
        if solve is None:
            return None
        d = len(self.zz)
        return d - float(np.diagonal(solve(np.diag(self.added))).sum()) if self.added.any() else float(d)

    def _factored(self) -> Solve | None:
        matrix = self.zz * self.scale
        if self.along is not None:
            matrix -= np.outer(self.bond * self.scale * self.along, self.along)
        matrix[np.diag_indices(len(matrix))] += self.added
        unit = np.sqrt(np.maximum(np.diagonal(matrix), 0))
        if not unit.all():
            return None
        matrix /= unit
        matrix /= unit[:, None]
        try:
            factor = cho_factor(matrix, overwrite_a=True)
        except LinAlgError:
            return None
        if float(np.abs(np.diagonal(factor[0])).min()) < MIN_LEFT:
            return None
        return lambda b: np.asarray(cho_solve(factor, b / unit[:, None]) / unit[:, None])
