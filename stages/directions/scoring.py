"""The second pass of a fit: what the data look like along the directions the first one found.

σ is the standard deviation of all rows along the stored direction. Separation (distance of the class means in pooled σ,
Cohen's d) and AUC are measured on held-out rows, along directions fitted without them. Scores are centred and scaled by
constants fixed before the pass, so plain sums are exact enough and merging is adding.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.attributes import Column, Floats
from stages.directions.auc import BINS, Area, area, bins_of, normal_quantile
from stages.rows import Block, read_blocks

ALL, POSITIVE, NEGATIVE = 0, 1, 2
NO_SPREAD_SHARE = 1e-14
"""Variance within classes, as a share of the squared distance of their means, below which it is rounding."""


@dataclass(slots=True)
class Scores:
    """`sums` (columns, 3, 3): for all rows, positives and negatives the n, Σx, Σx² of scaled scores; `histogram`
    (columns, 2, BINS): held-out positives and negatives; no columns at all without a holdout.
    """

    sums: Floats
    histogram: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Scoring:
    """A reduce stage. `stored` and `trial` (columns, d) are unit directions of all rows and of the training rows, zero where
    there is none; `centre` (d,); `scale` (columns,) is of the order of a score's spread.
    """

    columns: tuple[Column, ...]
    stored: Floats
    trial: Floats
    centre: Floats
    scale: Floats
    holdout: float

    def start(self) -> Scores:
        width = len(self.columns)
        return Scores(np.zeros((width, 3, 3)), np.zeros((width if self.holdout else 0, 2, BINS), np.int64))

    def add(self, state: Scores, batch: pa.RecordBatch) -> Scores:
        for block in read_blocks(batch, self.columns, holdout=self.holdout):
            self._add(state, block)
        return state

    def merge(self, a: Scores, b: Scores) -> Scores:
        return Scores(a.sums + b.sums, a.histogram + b.histogram)

    def _add(self, state: Scores, block: Block) -> None:
        latents = block.latents - self.centre
        scores = self.stored @ latents.T / self.scale[:, None]
        known, positive = block.known.T, block.values.T > 0.5
        state.sums[:, ALL] += _power_sums(scores, np.ones_like(known))
        if self.holdout:
            rows = block.held_out
            scores = self.trial @ latents[rows].T / self.scale[:, None]
            known, positive = known[:, rows], positive[:, rows]
            columns = np.arange(len(self.columns))[:, None] * 2 + ~positive  # a column's positives come first
            np.add.at(state.histogram.reshape(-1), (columns * BINS + bins_of(scores))[known], 1)
        state.sums[:, POSITIVE] += _power_sums(scores, known & positive)
        state.sums[:, NEGATIVE] += _power_sums(scores, known & ~positive)


@dataclass(frozen=True, slots=True)
class Spread:
    """What a pass measured along one direction; None is "not measured", never zero."""

    sigma: float | None = None
    separation: tuple[float, float, float] | None = None  # value, low, high
    auc: Area | None = None


def spreads(state: Scores, stage: Scoring, *, confidence: float) -> list[Spread]:
    """One a column. Sums are of scaled scores; sigma is given back in units of the latents."""
    found = []
    for i, column in enumerate(stage.columns):
        judged = column.binary and (stage.trial if stage.holdout else stage.stored)[i].any()
        sigma = float(np.sqrt(_variance(state.sums[i, ALL]))) * float(stage.scale[i])
        separation = separation_of(state.sums[i, POSITIVE], state.sums[i, NEGATIVE], confidence=confidence)
        measured = area(*state.histogram[i], confidence=confidence) if stage.holdout else None
        found.append(Spread(sigma, separation, measured) if judged else Spread(sigma))
    return found


def separation_of(
    positive: Sequence[float] | Floats, negative: Sequence[float] | Floats, *, confidence: float
) -> tuple[float, float, float] | None:
    """(δ, low, high), δ the distance of the class means in pooled σ. Arguments: n, Σx, Σx² of each class.

    The interval is the normal one of Hedges and Olkin (1985, ch. 5). None with fewer than two rows in a class or without spread.
    """
    (n, _, _), (m, _, _) = positive, negative
    if min(n, m) < 2:
        return None
    pooled = (_variance(positive) * (n - 1) + _variance(negative) * (m - 1)) / (n + m - 2)
    gap = float(positive[1] / n - negative[1] / m)
    if pooled <= NO_SPREAD_SHARE * gap**2:
        return None
    delta = float(gap / np.sqrt(pooled))
    reach = normal_quantile(confidence) * float(np.sqrt((n + m) / (n * m) + delta**2 / (2 * (n + m))))
    return delta, delta - reach, delta + reach


def _variance(sums: Sequence[float] | Floats) -> float:
    n, total, squares = sums
    return max(0.0, float(squares - total**2 / n)) / (n - 1) if n > 1 else 0.0


def _power_sums(scores: Floats, chosen: npt.NDArray[np.bool_]) -> Floats:
    """(columns, 3): n, Σx, Σx² of the chosen rows of each column; both arguments (columns, rows)."""
    kept = scores * chosen
    return np.column_stack([chosen.sum(1), kept.sum(1), np.einsum("ij,ij->i", kept, kept)])
