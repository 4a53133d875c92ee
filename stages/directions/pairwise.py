"""Forward least squares with missing labels, pair by pair: every entry of B = C⁻¹c from the rows that know what it takes.

C holds the covariances of labels a and b over the rows that know both, c those of label a with the latents over the rows that
know a. Nothing is imputed. Where labels are missing independently of everything (completely at random), B tends to the
coefficients of complete data; otherwise complete rows and pairs are biased alike, each in its own way. C of different rows
need not be a covariance matrix at all: when its correlations are not positive definite the fit is refused. There is no
simple standard error, so none is given.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.attributes import Column, Floats, LabelCounts
from stages.directions.closed_forms import (
    COLLINEAR_EIGENVALUE,
    COLLINEAR_FIX,
    class_evidence,
    hopeless_estimate,
    is_constant,
    regressions,
)
from stages.directions.direction import Estimate, Evidence, FitStatus, is_rounding
from stages.moments import Moments
from stages.rows import read_blocks


@dataclass(slots=True)
class Pairs:
    """Over the rows that know labels a and b: `n`, `mean` of a and of b's partner, and `scatter` Σ(a − ā)(b − b̄).

    n, mean, scatter: (m, m), mean[a, b] of label a over the rows that also know b. Over the rows that know a: `z_origin`
    (d,) + `z_offset` (m, d) the mean latent, `zy` (m, d) = Σ(z − z̄)(a − ā).
    """

    n: npt.NDArray[np.int64]
    mean: Floats
    scatter: Floats
    z_origin: Floats
    z_offset: Floats
    zy: Floats

    @classmethod
    def empty(cls, dim: int, labels: int) -> "Pairs":
        square, wide = np.zeros((labels, labels)), np.zeros((labels, dim))
        return cls(np.zeros((labels, labels), np.int64), square, square.copy(), np.zeros(dim), wide, wide.copy())

    @classmethod
    def of(cls, z: npt.NDArray[np.generic], values: Floats, known: npt.NDArray[np.bool_]) -> "Pairs":
        """z (rows, d); values, known (rows, m)."""
        if not len(z):
            return cls.empty(z.shape[1], known.shape[1])
        k = known.astype(np.float64)
        count = np.maximum(k.sum(0), 1)
        centre = (values * k).sum(0) / count
        y = (values - centre) * k
        n = np.rint(k.T @ k).astype(np.int64)
        size = np.maximum(n, 1)
        shift = (y.T @ k) / size  # of label a, over the rows that know b too
        scatter = y.T @ y - shift * shift.T * n
        wide = z.astype(np.float64)
        origin = wide.mean(0)
        wide -= origin
        z_offset = (k.T @ wide) / count[:, None]
        zy = y.T @ wide - (y.sum(0) / count)[:, None] * z_offset * count[:, None]
        return cls(n, centre[:, None] + shift, scatter, origin, z_offset, zy)

    def merged(self, other: "Pairs") -> "Pairs":
        """The statistic of both sets of rows, as Chan's for each pair; neither is changed."""
        if not self.n.any():
            return other
        n = self.n + other.n
        share = other.n / np.maximum(n, 1)
        # A pair that is unknown on one side has no mean there: a share of 0 or 1 must not let it in.
        delta = other.mean - self.mean
        step = (other.z_origin - self.z_origin) + other.z_offset - self.z_offset
        own, of_own = np.diagonal(self.n), np.diagonal(share)
        return Pairs(
            n,
            self.mean + delta * share,
            self.scatter + other.scatter + delta * delta.T * self.n * share,
            self.z_origin,
            self.z_offset + step * of_own[:, None],
            self.zy + other.zy + (np.diagonal(delta) * own * of_own)[:, None] * step,
        )


@dataclass(slots=True)
class Paired:
    """State of the pass: training and held-out rows, what is known of all of them, and label counts of each fold."""

    folds: tuple[Pairs, Pairs]
    everything: Moments
    counts: LabelCounts
    training: LabelCounts
    non_finite: int = 0


@dataclass(frozen=True)
class PairwisePass:
    """A reduce stage over batches with `id`, `latent` and `labels`."""

    columns: tuple[Column, ...]
    dim: int
    holdout: float

    def start(self) -> Paired:
        m = len(self.columns)
        none = LabelCounts.empty(m)
        folds = (Pairs.empty(self.dim, m), Pairs.empty(self.dim, m))
        return Paired(folds, Moments.empty(self.dim, full=False), none, none)

    def add(self, state: Paired, batch: pa.RecordBatch) -> Paired:
        for block in read_blocks(batch, self.columns, holdout=self.holdout):
            train = ~block.held_out
            parts = [Pairs.of(block.latents[r], block.values[r], block.known[r]) for r in (train, ~train)]
            state.folds = (state.folds[0].merged(parts[0]), state.folds[1].merged(parts[1]))
            state.everything.absorb(Moments.of(block.latents, full=False))
            state.counts = state.counts.merged(LabelCounts.of(block.values, block.known))
            state.training = state.training.merged(LabelCounts.of(block.values[train], block.known[train]))
            state.non_finite += block.non_finite
        return state

    def merge(self, a: Paired, b: Paired) -> Paired:
        return Paired(
            (a.folds[0].merged(b.folds[0]), a.folds[1].merged(b.folds[1])),
            a.everything.merged(b.everything),
            a.counts.merged(b.counts),
            a.training.merged(b.training),
            a.non_finite + b.non_finite,
        )


def pairwise_least_squares(
    pairs: Pairs, counts: LabelCounts, columns: Sequence[Column], *, l2: float, spread: Floats | float = 0.0
) -> list[Estimate]:
    """An estimate for every column. `l2` is Ridge's penalty for as many rows as a column's own.

    `spread` (d,): the latents' standard deviations, beside which rounding is told from a direction.
    """
    found: dict[int, Estimate] = {}
    for i, column in enumerate(columns):
        if estimate := hopeless_estimate(counts, i, column):
            found[i] = estimate
        elif is_constant(float(pairs.scatter[i, i]), int(pairs.n[i, i]), float(pairs.mean[i, i])):
            found[i] = Estimate(FitStatus.CONSTANT, Evidence(int(counts.known[i])))
    usable = [(i, column) for i, column in enumerate(columns) if i not in found]
    for targets, members in regressions(usable):
        found |= _solved(pairs, counts, columns, targets, members, l2, spread)
    return [found[i] for i in range(len(columns))]


def _solved(
    pairs: Pairs,
    counts: LabelCounts,
    columns: Sequence[Column],
    targets: list[int],
    members: list[int],
    l2: float,
    spread: Floats | float,
) -> dict[int, Estimate]:
    n = pairs.n[np.ix_(members, members)]
    evidence = {i: class_evidence(counts, i) if columns[i].binary else Evidence(int(counts.known[i])) for i in targets}
    least = int(n.min())
    if least < len(members) + 2:
        reason = f"{least} rows know both of some two labels, for {len(members)} attributes; fit fewer at a time"
        return {i: Estimate(FitStatus.TOO_FEW, evidence[i], reason) for i in targets}
    own = np.diagonal(n)
    covariance = pairs.scatter[np.ix_(members, members)] / n
    deviation = np.sqrt(np.diagonal(covariance))
    correlation = covariance / np.outer(deviation, deviation) + np.diag(l2 / own / deviation**2)
    values, vectors = np.linalg.eigh(correlation)
    nothing = COLLINEAR_EIGENVALUE * values[-1]
    if values[0] < -nothing:
        reason = (
            "the pairs' correlations are not positive definite: labels follow from one another, or rows differ too much"
        )
        fix = f"{reason}; set l2 above 0, or missing: complete"
        return {i: Estimate(FitStatus.COLLINEAR, evidence[i], fix) for i in targets}
    kept = values > nothing
    collinear = (vectors[:, ~kept] ** 2).sum(1) > COLLINEAR_EIGENVALUE
    inverse = (vectors[:, kept] / values[kept]) @ vectors[:, kept].T
    along = pairs.zy[members] / own[:, None] / deviation[:, None]
    rows = (inverse @ along) / deviation[:, None]
    units = np.diagonal(inverse)[:, None] * (spread / deviation[:, None])
    said = "" if (n == n[0, 0]).all() else f"pairwise: {least} to {int(n.max())} rows a pair of labels"
    return {
        i: Estimate(FitStatus.COLLINEAR, evidence[i], COLLINEAR_FIX)
        if collinear[members.index(i)]
        else _estimate(pairs, rows[members.index(i)], units[members.index(i)], evidence[i], i, said)
        for i in targets
    }


def _estimate(pairs: Pairs, coefficients: Floats, unit: Floats, evidence: Evidence, i: int, said: str) -> Estimate:
    intercept = None
    if evidence.n_positive and evidence.n_negative:
        mean = pairs.z_origin + pairs.z_offset[i]
        middle = mean + pairs.zy[i] * (1 / evidence.n_positive - 1 / evidence.n_negative) / 2
        intercept = float(-coefficients @ middle)
    status = FitStatus.ZERO_NORM if is_rounding(coefficients, unit) else FitStatus.OK
    return Estimate(status, evidence, said, coefficients, None, intercept)
