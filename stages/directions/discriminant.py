"""Linear discriminants from second moments: w = Σ_W⁻¹(m₊ − m₋), Σ_W the covariance within classes (Fisher 1936).

Shrinkage s: (1 − s)Σ_W + s·tr(Σ_W)/d·I, scikit-learn's LinearDiscriminantAnalysis with solver lsqr or eigen. `auto` is
Ledoit and Wolf's (2004) estimate of the best s on coordinates scaled to unit variance within classes; scikit-learn estimates
one s a class, which takes a d × d matrix a class and label, where the pooled one takes a number. It asks for fourth powers
of the rows' lengths, and so for one more pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from scipy.linalg import cho_solve
from scipy.linalg.lapack import dpocon, dpotrf

from stages.attributes import Column, Floats
from stages.moments import Moments
from stages.rows import read_blocks

RANK_TOLERANCE = 1e-12
"""Of the matrix scaled to a unit diagonal: eigenvalues below this share of the largest count as zero."""


@dataclass(frozen=True, slots=True)
class Classes:
    """Two classes on the rows of a statistic: counts, means (d,), and scatter within them (d, d)."""

    n: tuple[int, int]
    positive: Floats
    negative: Floats
    within: Floats

    @classmethod
    def of(cls, moments: Moments, label: int) -> "Classes | None":
        """The classes of a 0/1 label of `moments`; None without both."""
        n = moments.n
        positive = round(n * float(moments.y_mean[label])) if n else 0
        if not 0 < positive < n:
            return None
        # zy is the sum of the positives' distances from the mean; the negatives' is its opposite.
        along = moments.zy[:, label]
        gap = along * (1 / positive + 1 / (n - positive))
        within = moments.zz - np.outer(along, gap)
        mean = moments.z_mean
        return cls((positive, n - positive), mean + along / positive, mean - along / (n - positive), within)

    @property
    def total(self) -> int:
        return sum(self.n)

    @property
    def deviation(self) -> Floats:
        """(d,), within classes, divided by n; 1 where there is none."""
        variance = np.maximum(np.diagonal(self.within), 0) / self.total
        return np.where(variance > 0, np.sqrt(variance), 1.0)


def discriminant(classes: Classes, *, shrinkage: float, unit: Floats | float = 1.0) -> tuple[Floats, int]:
    """(w, rank of the matrix that was solved). `unit` (d,) or 1: the scale in which coordinates are shrunk towards each other.

    Below full rank the least w is taken, in coordinates of unit deviation.
    """
    covariance = classes.within / classes.total / np.outer(unit, unit)
    d = len(covariance)
    shrunk = (1 - shrinkage) * covariance
    shrunk[np.diag_indices(d)] += shrinkage * np.trace(covariance) / d
    deviation = np.sqrt(np.maximum(np.diagonal(shrunk), 0))
    deviation[deviation == 0] = 1.0
    shrunk /= np.outer(deviation, deviation)
    unit = unit * deviation
    gap = (classes.positive - classes.negative) / unit
    factor, failed = dpotrf(shrunk)
    if not failed and dpocon(factor, np.abs(shrunk).sum(0).max())[0] > RANK_TOLERANCE:
        return np.asarray(cho_solve((factor, False), gap) / unit), d
    values, vectors = np.linalg.eigh(shrunk)
    kept = values > RANK_TOLERANCE * max(float(values[-1]), 1e-300)
    return np.asarray((vectors[:, kept] / values[kept]) @ (gap @ vectors[:, kept]) / unit), int(kept.sum())


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


def ledoit_wolf(classes: Classes, fourth: float) -> float:
    """The shrinkage in [0, 1] of rows scaled to unit deviation; `fourth`: Σ‖row‖⁴ of those rows, less their class means."""
    unit = classes.deviation
    covariance = classes.within / classes.total / np.outer(unit, unit)
    n, d = classes.total, len(covariance)
    squared, mean = float((covariance**2).sum()), float(np.trace(covariance)) / d
    distance = squared - d * mean**2
    error = min((fourth / n - squared) / n, distance)
    return error / distance if error > 0 and distance > 0 else 0.0


def fourth_powers(
    columns: Sequence[Column], problems: Sequence[tuple[int, bool, Classes]], *, centre: Floats, holdout: float
) -> FourthPowers:
    """The pass for (column, training rows only, its classes) of every problem."""
    return FourthPowers(
        columns=tuple(columns),
        of=tuple(i for i, _, _ in problems),
        training=tuple(t for _, t, _ in problems),
        positive=np.stack([c.positive for _, _, c in problems]),
        negative=np.stack([c.negative for _, _, c in problems]),
        deviation=np.stack([c.deviation for _, _, c in problems]),
        centre=centre,
        holdout=holdout,
    )
