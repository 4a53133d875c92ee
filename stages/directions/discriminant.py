"""Linear discriminants from second moments: w = Σ_W⁻¹(m₊ − m₋), Σ_W the covariance within classes (Fisher 1936).

Shrinkage s: (1 − s)Σ_W + s·tr(Σ_W)/d·I, scikit-learn's LinearDiscriminantAnalysis with solver lsqr or eigen. `auto` is
Ledoit and Wolf's (2004) estimate of the best s on coordinates scaled to unit variance within classes; scikit-learn estimates
one s a class, which takes a d × d matrix a class and label, where the pooled one takes a number. It asks for fourth powers
of the rows' lengths, and so for one more pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.linalg import cho_solve
from scipy.linalg.lapack import dpocon, dpotrf

from stages.attributes import Column, Floats
from stages.directions.group_scatter import Scatter, Subset
from stages.moments import Moments
from stages.rows import read_blocks
from stages.stage import Passes

RANK_TOLERANCE = 1e-12
"""Of the matrix scaled to a unit diagonal: eigenvalues below this share of the largest count as zero."""
MIN_LEFT = 1e-9
"""Of the distance between the classes that lies within them; with less, the covariance is as good as singular."""


@dataclass(frozen=True, slots=True)
class Classes:
    """Two classes on the rows of a statistic: counts and means (d,).

    The scatter within them is Σzz − bond·along·alongᵀ; `scatter` (d,) is its diagonal.
    """

    n: tuple[int, int]
    positive: Floats
    negative: Floats
    along: Floats
    scatter: Floats

    @classmethod
    def of(cls, moments: Moments, label: int) -> "Classes | None":
        """The classes of a 0/1 label of `moments`; None without both."""
        n = moments.n
        positive = round(n * float(moments.y_mean[label])) if n else 0
        if not 0 < positive < n:
            return None
        # zy is the sum of the positives' distances from the mean; the negatives' is its opposite.
        along, mean = moments.zy[:, label], moments.z_mean
        within = moments.squares - along**2 * (1 / positive + 1 / (n - positive))
        means = mean + along / positive, mean - along / (n - positive)
        return cls((positive, n - positive), *means, along, np.maximum(within, 0))

    @property
    def total(self) -> int:
        return sum(self.n)

    @property
    def bond(self) -> float:
        return 1 / self.n[0] + 1 / self.n[1]

    @property
    def deviation(self) -> Floats:
        """(d,), within classes, divided by n; 1 where there is none."""
        return np.where(self.scatter > 0, np.sqrt(self.scatter / self.total), 1.0)

    def mean_variance(self, unit: Floats) -> float:
        """tr(Σ_W)/d, coordinates measured in `unit` (d,)."""
        return float((self.scatter / unit**2).mean()) / self.total


def discriminant(classes: Classes, zz: Floats, *, shrinkage: float, unit: Floats) -> tuple[Floats, int, float]:
    """(w, rank of the matrix that was solved, share of the squared distance between the classes that lies outside its span).

    `unit` (d,): the scale in which coordinates are shrunk towards each other. Below full rank the least w is taken, in
    coordinates of unit deviation; what lies outside the span parts the classes, and w does not see it.
    """
    shrunk = np.outer(-classes.bond * classes.along, classes.along)
    shrunk += zz
    shrunk *= (1 - shrinkage) / classes.total / unit
    shrunk /= unit[:, None]
    d = len(shrunk)
    shrunk[np.diag_indices(d)] += shrinkage * classes.mean_variance(unit)
    deviation = np.sqrt(np.maximum(np.diagonal(shrunk), 0))
    deviation[deviation == 0] = 1.0
    shrunk /= deviation
    shrunk /= deviation[:, None]
    unit = unit * deviation
    gap = (classes.positive - classes.negative) / unit
    factor, failed = dpotrf(shrunk)
    if not failed and dpocon(factor, np.abs(shrunk).sum(0).max())[0] > RANK_TOLERANCE:
        return np.asarray(cho_solve((factor, False), gap) / unit), d, 0.0
    del factor
    values, vectors = np.linalg.eigh(shrunk)
    kept = values > RANK_TOLERANCE * max(float(values[-1]), 1e-300)
    along = gap @ vectors
    outside = float((along[~kept] ** 2).sum()) / (float(gap @ gap) or 1.0)
    return np.asarray((vectors[:, kept] / values[kept]) @ along[kept] / unit), int(kept.sum()), outside


def wide_discriminants(
    rows: Subset, classes: Sequence[Classes], *, shrinkage: Floats, unit: Floats
) -> Passes[Any, tuple[Floats, Floats]]:
    """(w (d, m), residual (m,) of the system solved, infinite where it is as good as singular) for m labels of the same rows.

    shrinkage (m,); unit (d, m). What parts Σ_W from Σzz is of rank one, so by Sherman and Morrison w points where the solution
    with Σzz does, and only its length changes.
    """
    n, bond = np.array([c.total for c in classes]), np.array([c.bond for c in classes])
    along = np.stack([c.along for c in classes], axis=1) / unit
    variance = np.array([c.mean_variance(u) for c, u in zip(classes, unit.T, strict=True)])
    mixed = np.where(shrinkage < 1, shrinkage, 0.5)
    solved = yield from rows.solve(along, n * variance * mixed / (1 - mixed), unit=unit)
    left = 1 - bond * np.einsum("dm,dm->m", along, solved.x[0])
    w = solved.x[0] * (bond * n / (1 - mixed) / np.where(left > 0, left, 1.0))
    residual = np.where(left > MIN_LEFT, solved.residual[0], np.inf)
    alone = shrinkage == 1  # nothing of Σ_W but its mean variance is left
    w[:, alone] = along[:, alone] * (bond / np.where(variance > 0, variance, 1.0))[alone]
    residual[alone] = np.where(variance > 0, 0.0, np.inf)[alone]
    return np.asarray(w / unit), residual


@dataclass(frozen=True)
class FourthPowers:
    """A reduce stage: for problem i, Σ‖(z − m)/deviation‖⁴ over the rows that know column `of[i]`, m the mean of a row's class.

    `training` (problems,): held-out rows stay out. `positive`, `negative`, `deviation`: (problems, d). `centre` (d,).
    """

    columns: tuple[Column, ...]
    of: tuple[int, ...]
    training: tuple[bool, ...]
    positive: Floats
    negative: Floats
    deviation: Floats
    centre: Floats
    holdout: float

    def start(self) -> Floats:
        return np.zeros(len(self.of))

    def add(self, state: Floats, batch: pa.RecordBatch) -> Floats:
        weight = 1 / self.deviation**2
        means = np.stack([self.positive, self.negative]) - self.centre
        for block in read_blocks(batch, self.columns, holdout=self.holdout):
            x = block.latents - self.centre
            # ‖(x − m)/σ‖² for both classes of every problem, by three products.
            squares = x * x @ weight.T - 2 * (x @ (means * weight)[:, :, :].transpose(0, 2, 1))
            squares = squares + (means**2 * weight).sum(2)[:, None, :]
            of = list(self.of)
            known, positive = block.known[:, of], block.values[:, of] > 0.5
            known = known & ~(block.held_out[:, None] & np.array(self.training))
            state = state + (np.where(positive, squares[0], squares[1]) ** 2 * known).sum(0)
        return state

    def merge(self, a: Floats, b: Floats) -> Floats:
        return a + b


def ledoit_wolf(classes: Classes, scatter: Scatter, fourth: float, *, unit: Floats) -> float:
    """The shrinkage in [0, 1] of rows measured in `unit` (d,); `fourth`: Σ‖row‖⁴ of those rows, less their class means."""
    n, d, mean = classes.total, len(unit), classes.mean_variance(unit)
    inner = classes.along / unit**2
    length = float(inner @ classes.along)
    within = (
        scatter.squared_norm(unit) - 2 * classes.bond * float(inner @ (scatter @ inner)) + (classes.bond * length) ** 2
    )
    squared = within / n**2
    distance = squared - d * mean**2
    error = min((fourth / n - squared) / n, distance)
    return error / distance if error > 0 and distance > 0 else 0.0


def fourth_powers(
    columns: Sequence[Column],
    problems: Sequence[tuple[int, bool, Classes, Floats]],
    *,
    centre: Floats,
    holdout: float,
) -> FourthPowers:
    """The pass for (column, training rows only, its classes, the unit of coordinates (d,)) of every problem."""
    return FourthPowers(
        columns=tuple(columns),
        of=tuple(i for i, _, _, _ in problems),
        training=tuple(t for _, t, _, _ in problems),
        positive=np.stack([c.positive for _, _, c, _ in problems]),
        negative=np.stack([c.negative for _, _, c, _ in problems]),
        deviation=np.stack([unit for _, _, _, unit in problems]),
        centre=centre,
        holdout=holdout,
    )
