"""The judging pass of a bootstrap: separation and AUC of every column under every replicate's weights.

Weights follow from the hash of a row's group (stages/bootstrap.py), so sums of parts add up to those of the whole.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.attributes import Bools, Column, Floats
from stages.bootstrap import poisson_weights
from stages.directions.auc import bins_of
from stages.rows import Block, read_blocks

BINS = 2**10
"""Of the scores: only differences between replicates' areas are read from them."""


@dataclass(slots=True)
class Judged:
    """Sums of every weighting, the first of which is 1 for every row.

    `scores` (weightings, columns, 2 classes, 3) Σw, Σw s, Σw s²; `histogram` (columns, 2·BINS, weightings), a column's
    positives first.
    """

    scores: Floats
    histogram: npt.NDArray[np.int32]


@dataclass(frozen=True)
class Judging:
    """A reduce stage. `trial` (columns, d), `centre` (d,), `scale` (columns,) as in `Scoring`; `replicates`: which ones."""

    columns: tuple[Column, ...]
    trial: Floats
    centre: Floats
    scale: Floats
    holdout: float
    replicates: range

    @property
    def bytes_a_replicate(self) -> int:
        return 4 * len(self.columns) * 2 * BINS

    def start(self) -> Judged:
        r, c = 1 + len(self.replicates), len(self.columns)
        return Judged(np.zeros((r, c, 2, 3)), np.zeros((c, 2 * BINS, r), np.int32))

    def add(self, state: Judged, batch: pa.RecordBatch) -> Judged:
        for block in read_blocks(batch, self.columns, holdout=self.holdout):
            rows = np.flatnonzero(block.held_out) if self.holdout else np.arange(len(block))
            if len(rows):
                self._judge(state, block, rows)
        return state

    def merge(self, a: Judged, b: Judged) -> Judged:
        return Judged(a.scores + b.scores, a.histogram + b.histogram)

    def _judge(self, state: Judged, block: Block, rows: npt.NDArray[np.int64]) -> None:
        weights = np.ones((len(rows), 1 + len(self.replicates)), np.uint8)
        weights[:, 1:] = poisson_weights(block.groups[rows], self.replicates)
        scores = (self.trial @ (block.latents[rows] - self.centre).T) / self.scale[:, None]
        known, positive = block.known[rows].T, block.values[rows].T > 0.5
        wide = weights.astype(np.float64)
        for k, chosen in enumerate((known & positive, known & ~positive)):
            for power in range(3):
                state.scores[:, :, k, power] += ((chosen * scores**power) @ wide).T
        bins = (bins_of(scores) >> 4) + np.where(positive, 0, BINS)
        for c in np.flatnonzero(self.trial.any(axis=1)):
            add_weights(state.histogram[c], bins[c], known[c], weights)


def add_weights(
    sums: npt.NDArray[np.int32], bins: npt.NDArray[np.int64], chosen: Bools, weights: npt.NDArray[np.uint8]
) -> None:
    """Adds the weights (rows, weightings) of chosen rows to their bins, rows of `sums` (bins, weightings)."""
    rows = np.flatnonzero(chosen)
    if not len(rows):
        return
    rows = rows[np.argsort(bins[rows], kind="stable")]
    filled, starts = np.unique(bins[rows], return_index=True)
    sums[filled] += np.add.reduceat(weights[rows], starts, axis=0, dtype=np.int32)


def separations(sums: Floats) -> Floats:
    """(weightings,) distance of the class means in pooled σ; sums: (weightings, 2 classes, 3)."""
    n, total, squares = sums[..., 0], sums[..., 1], sums[..., 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = total / n
        pooled = (squares - n * mean**2).sum(1) / (n.sum(1) - 2)
        return np.where(n.min(1) >= 2, (mean[:, 0] - mean[:, 1]) / np.sqrt(pooled), np.nan)


def areas(histogram: npt.NDArray[np.int32]) -> Floats:
    """(weightings,) areas under the ROC curve, ties halved; NaN without rows of both classes."""
    positive, negative = histogram[:BINS].astype(np.float64), histogram[BINS:].astype(np.float64)
    below = np.cumsum(negative, axis=0) - negative / 2
    with np.errstate(invalid="ignore"):
        return np.asarray((positive * below).sum(0) / (positive.sum(0) * negative.sum(0)))
