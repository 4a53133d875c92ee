"""How much a leak would differ had the directions been fitted on other images: both fits repeated under bootstrap weights.

A direction acts on scores through their gradient g, found by regressing unedited scores on latents. So it is enough to fit
the projections g·z: the difference of means and the least squares of a few numbers a row, each in closed form from weighted
sums of products, and never a whole direction. One pass, all replicates, exact where scores are linear in latents.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from stages.attributes import Column, Floats
from stages.evaluation.crossfit import CrossFit
from stages.evaluation.groups import group_hashes
from stages.evaluation.on_labels import add_rows, empty_sums, least_squares, means_apart
from stages.moments import Moments
from stages.rows import read_blocks

MAX_DIM = 1024
ROWS_PER_DIM = 2
"""A gradient of d numbers asks for so many rows times d."""


def gradient(response: Moments) -> Floats | None:
    """(J, d) from the moments of latents and scores; None with too few rows for it."""
    if response.n < ROWS_PER_DIM * response.dim + 2:
        return None
    ridge = 1e-9 * float(np.trace(response.zz)) / response.dim
    return np.asarray(np.linalg.solve(response.zz + ridge * np.eye(response.dim), response.zy).T)


@dataclass(frozen=True, eq=False)
class Refit:
    """A reduce stage: `on_labels` sums of projections of latents, over rows that know every column.

    `projections` (P, d); `centre` (d,) lies near the latents' mean. `held_out`: scores of every row by a fit without it, which
    come after the projections.
    """

    columns: tuple[Column, ...]
    projections: Floats
    centre: Floats
    replicates: int
    seed: int
    group: str | None
    held_out: CrossFit | None = None

    def start(self) -> Floats:
        more = 0 if self.held_out is None else self.held_out.coefficients.shape[1]
        return empty_sums(len(self.columns), len(self.projections) + more, replicates=self.replicates)

    def add(self, state: Floats, batch: pa.RecordBatch) -> Floats:
        for block in read_blocks(batch, self.columns, holdout=0.0):
            chosen = np.flatnonzero(block.known.all(axis=1))
            latents = block.latents[chosen]
            projected = (latents - self.centre) @ self.projections.T
            groups = group_hashes(block.labels, self.group, block.hashes)[chosen]
            if self.held_out is not None:
                projected = np.column_stack([projected, self.held_out(latents, groups)])
            add_rows(state, block.values[chosen], projected, groups, seed=self.seed)
        return state

    def merge(self, a: Floats, b: Floats) -> Floats:
        return a + b


@dataclass(frozen=True, eq=False)
class Refits:
    """What the fits of every replicate do to the scores: (1 + replicates, label, score)."""

    plain: Floats
    balanced: Floats

    @classmethod
    def of(cls, sums: Floats) -> "Refits":
        """From the sums of a `Refit` along the scores' gradient."""
        return cls(means_apart(sums), least_squares(sums))
