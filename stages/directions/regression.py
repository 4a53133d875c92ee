"""The one pass of forward least squares: moments of the rows that carry every fitted label, and of the others.

Rows are kept apart by fold, so the fit of all rows and the one without held-out rows come from the same pass. With Σzzᵀ kept
in full, σ and separation follow from the moments too, and no second pass is needed.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from stages.attributes import Column, LabelCounts
from stages.directions.direction import Estimate, FitStatus
from stages.directions.scoring import Spread, separation_of
from stages.moments import Moments
from stages.rows import read_blocks


@dataclass(slots=True)
class Regressed:
    """State of a regression pass: moments of the complete rows of each fold (training, held out), and of the others."""

    complete: tuple[Moments, Moments]
    incomplete: Moments
    counts: LabelCounts
    non_finite: int = 0


@dataclass(frozen=True)
class Regression:
    """A reduce stage. Rows are complete when they know every column whose position is in `members`."""

    columns: tuple[Column, ...]
    members: tuple[int, ...]
    dim: int
    holdout: float
    full: bool

    def start(self) -> Regressed:
        width = len(self.members)
        complete = (self._empty(width), self._empty(width))
        return Regressed(complete, self._empty(0), LabelCounts.empty(len(self.columns)))

    def add(self, state: Regressed, batch: pa.RecordBatch) -> Regressed:
        members = list(self.members)
        for block in read_blocks(batch, self.columns, holdout=self.holdout):
            complete = block.known[:, members].all(axis=1)
            for fold, rows in zip(state.complete, (~block.held_out, block.held_out), strict=True):
                chosen = np.flatnonzero(complete & rows)
                y = block.values[chosen][:, members]
                fold.absorb(Moments.of(block.latents[chosen], y=y, full=self.full))
            state.incomplete.absorb(Moments.of(block.latents[~complete], full=self.full))
            state.counts = state.counts.merged(LabelCounts.of(block.values, block.known))
            state.non_finite += block.non_finite
        return state

    def merge(self, a: Regressed, b: Regressed) -> Regressed:
        return Regressed(
            (a.complete[0].merged(b.complete[0]), a.complete[1].merged(b.complete[1])),
            a.incomplete.merged(b.incomplete),
            a.counts.merged(b.counts),
            a.non_finite + b.non_finite,
        )

    def subtract(self, a: Regressed, b: Regressed) -> tuple[Regressed, float]:
        train, held_out = (x.without(y) for x, y in zip(a.complete, b.complete, strict=True))
        incomplete = a.incomplete.without(b.incomplete)
        counts = a.counts.without(b.counts, self.columns)
        rest = Regressed((train[0], held_out[0]), incomplete[0], counts, a.non_finite - b.non_finite)
        return rest, max(train[1], held_out[1], incomplete[1])

    def _empty(self, labels: int) -> Moments:
        return Moments.empty(self.dim, labels=labels, full=self.full)


def in_sample(moments: Moments, estimate: Estimate, i: int, column: Column, confidence: float) -> Spread:
    """σ and separation along a direction from the moments it was fitted on: no second pass."""
    if estimate.status is not FitStatus.OK or estimate.coefficients is None:
        return Spread()
    unit = estimate.coefficients / np.linalg.norm(estimate.coefficients)
    total, along = float(unit @ moments.zz @ unit), float(unit @ moments.zy[:, i])
    sigma = float(np.sqrt(max(total, 0) / (moments.n - 1)))
    if not column.binary:
        return Spread(sigma)
    n, m = estimate.evidence.n_positive, estimate.evidence.n_negative
    assert n and m
    # zy is the sum of the positives' distances from the mean; the negatives' is its opposite.
    inside = max(total - along**2 * (1 / n + 1 / m), 0.0)
    halves = [inside * (k - 1) / (n + m - 2) + along**2 / k for k in (n, m)]
    return Spread(sigma, separation_of((n, along, halves[0]), (m, -along, halves[1]), confidence=confidence))
