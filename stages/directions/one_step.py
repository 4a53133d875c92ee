"""Replicates of estimators that are roots: one Newton step from the fit, which is what the bootstrap does to first order in 1/n.

A fit w solves Σ ψ(row; w) = 0 (with its penalty); under weights ω the root is near w + H⁻¹ Σ (ω − 1) ψ(row; w), H the curvature
at the fit (Shao and Tu 1995, §3.4 and §5.2 on one-step and linear bootstraps; Efron and Tibshirani 1993, §21–22; van der Vaart
1998, §5.3 and §20 on influence functions). So one pass of d numbers a column and replicate does, and no replicate is refitted.
What is chosen from the data is held at the fit's choice: the ridge penalty, the shrinkage, the ends of `extremes`.

Residuals of fitted rows are too small, by (n − p)/n on average, p the effective number of coefficients (MacKinnon and White
1985, HC1): changes are scaled up for that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from stages.attributes import Column, Floats
from stages.bootstrap import poisson_weights
from stages.directions.linearised import Linearised, RowScores
from stages.directions.weighted_sums import Drawn
from stages.rows import read_blocks
from stages.stage import Passes

PRODUCT_VALUES = 2**22
"""Most numbers of rows × (replicates or coefficients) at a time."""


@dataclass(frozen=True)
class ScoreSums:
    """A reduce stage: Σ(ω − 1)ψ of every column in `of`, each (replicates, k)."""

    columns: tuple[Column, ...]
    of: tuple[int, ...]
    scores: tuple[RowScores, ...]
    widths: tuple[int, ...]
    replicates: range

    def start(self) -> list[Floats]:
        return [np.zeros((len(self.replicates), width)) for width in self.widths]

    def add(self, state: list[Floats], batch: pa.RecordBatch) -> list[Floats]:
        step = max(1, PRODUCT_VALUES // max(*self.widths, len(self.replicates)))
        for block in read_blocks(batch, self.columns, holdout=0):
            weights = poisson_weights(block.groups, self.replicates)
            for sums, i, scores in zip(state, self.of, self.scores, strict=True):
                known = np.flatnonzero(block.known[:, i])
                for start in range(0, len(known), step):
                    rows = known[start : start + step]
                    sums += (weights[rows] - 1.0).T @ scores(block.latents[rows], block.values[rows, i])
        return state

    def merge(self, a: list[Floats], b: list[Floats]) -> list[Floats]:
        return [x + y for x, y in zip(a, b, strict=True)]


@dataclass(frozen=True)
class OneStep:
    """A way to replicates (`stages.directions.resampling.Method`); `fits` by column, None or a reason where there is none."""

    columns: tuple[Column, ...]
    fits: Sequence[Linearised | str | None]

    @property
    def bytes_a_replicate(self) -> int:
        return 8 * sum(2 * fit.width for fit in self.fits if isinstance(fit, Linearised))

    def replicates(self, which: range) -> Passes[Any, Drawn]:
        fits = {i: f for i, f in enumerate(self.fits) if isinstance(f, Linearised) and f.refusal is None}
        if not fits:
            return [None] * len(self.columns)
        scores, widths = tuple(f.scores for f in fits.values()), tuple(f.width for f in fits.values())
        sums: list[Floats] = yield ScoreSums(self.columns, tuple(fits), scores, widths, which)
        drawn: Drawn = [None] * len(self.columns)
        for (i, fit), total in zip(fits.items(), sums, strict=True):
            wider = np.sqrt(fit.rows / (fit.rows - fit.parameters))
            drawn[i] = fit.coefficients + wider * fit.solve(total.T).T
        return drawn
