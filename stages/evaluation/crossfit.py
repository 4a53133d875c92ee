"""Least squares scores of rows that they were not fitted on: the rows parted into folds by hash, each scored by the others.

A score fitted on n rows of d numbers seems to answer to any label on those rows: of noise, R² is d/(n − 1) and so is the
change of the score with its label. One pass keeps the moments of every fold apart. Those of the other folds give the fold's
own score, by the normal equations; the fold's own give the error of it. Rows of a group are in one fold.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.attributes import Column, Floats, LabelCounts
from stages.evaluation.groups import group_hashes
from stages.moments import Moments
from stages.row_hash import Hashes, fractions
from stages.rows import read_blocks

SALT = "cross-fit"
MAX_FOLDS = 10
MIN_FOLDS = 3
FOLD_VALUES = 2**23
"""Numbers in the covariances of all folds together, unless three folds need more: 64 MiB."""
HALVES = 2.0
"""What says nothing, a cross-fit says twice: fold f's rows of the fit on fold g what g's rows say of the fit on f, as
Σ c_f'A⁻¹c_g. Who takes the two for two findings has half the true variance."""
RIDGE = 1e-6
"""λ as a share of the mean variance of a coordinate: keeps dimensions that never vary from blowing up."""


def folds_for(dim: int) -> int:
    """More folds lose fewer rows to each fit, and take more memory."""
    return max(MIN_FOLDS, min(MAX_FOLDS, FOLD_VALUES // dim**2))


def fold_of(groups: Hashes, folds: int) -> npt.NDArray[np.int64]:
    """(rows,) in [0, folds)."""
    return (fractions(groups, SALT) * folds).astype(np.int64)


@dataclass(slots=True)
class Folded:
    """State: moments of the complete rows of each fold, and the counts of all labels."""

    folds: tuple[Moments, ...]
    counts: LabelCounts

    @property
    def moments(self) -> Moments:
        """Of all folds."""
        return _together(self.folds)


@dataclass(frozen=True)
class InFolds:
    """A reduce stage. Rows are complete when they know every column whose position is in `members`."""

    columns: tuple[Column, ...]
    members: tuple[int, ...]
    dim: int
    group: str | None

    def start(self) -> Folded:
        empty = (Moments.empty(self.dim, labels=len(self.members), full=True) for _ in range(folds_for(self.dim)))
        return Folded(tuple(empty), LabelCounts.empty(len(self.columns)))

    def add(self, state: Folded, batch: pa.RecordBatch) -> Folded:
        members = list(self.members)
        for block in read_blocks(batch, self.columns, holdout=0.0):
            complete = block.known[:, members].all(axis=1)
            mine = fold_of(group_hashes(block.labels, self.group, block.hashes), len(state.folds))
            for at, fold in enumerate(state.folds):
                chosen = np.flatnonzero(complete & (mine == at))
                fold.absorb(Moments.of(block.latents[chosen], y=block.values[chosen][:, members], full=True))
            state.counts = state.counts.merged(LabelCounts.of(block.values, block.known))
        return state

    def merge(self, a: Folded, b: Folded) -> Folded:
        both = tuple(x.merged(y) for x, y in zip(a.folds, b.folds, strict=True))
        return Folded(both, a.counts.merged(b.counts))


@dataclass(frozen=True, eq=False)
class CrossFit:
    """Score j of a row of fold f is coefficients[f, j]·(z − centres[f]), fitted on the other folds.

    `centres` (folds, d): each fold's own mean, so that the folds do not differ by what their fits took for the mean. `group`:
    the label whose rows share a fold. `r2` (J,): 1 − Σ(y − ŷ)²/Σ(y − ȳ)² over all rows, ŷ and ȳ both of the other folds; `r`
    (J,): how y and ŷ go together within the folds.
    """

    coefficients: Floats  # (folds, J, d)
    centres: Floats
    group: str | None
    r2: Floats
    r: Floats

    def only(self, kept: Sequence[int]) -> "CrossFit":
        return replace(
            self, coefficients=self.coefficients[:, list(kept)], r2=self.r2[list(kept)], r=self.r[list(kept)]
        )

    def __call__(self, latents: npt.NDArray[np.generic], groups: Hashes) -> Floats:
        """(n, d) → (n, J)."""
        mine = fold_of(groups, len(self.centres))
        scores = np.empty((len(latents), self.coefficients.shape[1]))
        for at, (weights, centre) in enumerate(zip(self.coefficients, self.centres, strict=True)):
            rows = mine == at
            scores[rows] = (latents[rows] - centre) @ weights.T
        return scores


def cross_fit(folds: Sequence[Moments], kept: Sequence[int], group: str | None) -> CrossFit | None:
    """Of the labels at `kept`. None where all rows but a few are in one fold: there is nothing to fit on beside it."""
    labels = list(kept)
    weights = np.zeros((len(folds), len(kept), folds[0].dim))
    missed, spread, sums = np.zeros(len(kept)), np.zeros(len(kept)), np.zeros((3, len(kept)))
    for at, fold in enumerate(folds):
        if not fold.n:
            continue
        others = _together([*folds[:at], *folds[at + 1 :]])
        if others.n < 3:
            return None
        found = weights[at] = solve(others)[labels]
        apart = fold.y_mean[labels] - others.y_mean[labels]
        off = apart - found @ (fold.z_mean - others.z_mean)
        yy, yx = np.diagonal(fold.yy)[labels], np.einsum("jd,dj->j", found, fold.zy[:, labels])
        xx = np.einsum("jd,jd->j", found @ fold.zz, found)
        missed += yy - 2 * yx + xx + fold.n * off**2
        spread += yy + fold.n * apart**2
        sums += yy, yx, xx
    r2 = np.where(spread > 0, 1 - missed / np.where(spread > 0, spread, 1.0), 0.0)
    size = np.sqrt(sums[0] * sums[2])
    r = np.where(size > 0, sums[1] / np.where(size > 0, size, 1.0), 0.0)
    return CrossFit(weights, np.array([fold.z_mean for fold in folds]), group, r2, r)


def solve(moments: Moments) -> Floats:
    """(labels, d): w = (Σzz + λI)⁻¹ Σzy of every label."""
    covariance = moments.zz / (moments.n - 1)
    ridge = RIDGE * float(np.trace(covariance)) / len(covariance)
    # Latents that never vary have no slope, and no matrix to invert.
    system = covariance + (ridge or 1.0) * np.eye(len(covariance))
    return np.asarray(np.linalg.solve(system, moments.zy / (moments.n - 1)).T, np.float64)


def _together(folds: Sequence[Moments]) -> Moments:
    both = folds[0].copy()
    for fold in folds[1:]:
        both.absorb(fold)
    return both
