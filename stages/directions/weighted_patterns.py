"""Replicates of Haufe's pattern a = Σzz w/(wᵀΣzz w): each replicate's filter with that replicate's own Σzz, no delta method.

Σzz w is the covariance of latents with scores, so a pass over all selected rows, labelled or not, keeps d numbers a column
and replicate. Given the filters it is exact; the filters are those of one step (stages/directions/one_step.py).
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from stages.attributes import Floats
from stages.bootstrap import poisson_weights
from stages.directions.weighted_sums import Drawn
from stages.rows import read_blocks
from stages.stage import Passes

PRODUCT_VALUES = 2**22
"""Most numbers of rows × replicates at a time."""


class Filters(Protocol):
    """A way to replicates (`stages.directions.resampling.Method`)."""

    @property
    def bytes_a_replicate(self) -> int: ...

    def replicates(self, which: range) -> Passes[Any, Drawn]: ...


@dataclass(slots=True)
class ScoreProducts:
    """Of every replicate: `n` Σω (R,), `z` Σωz (R, d); of every filter `scores` Σωs, Σωs² (2, C, R), `zs` Σωsz (C, R, d)."""

    n: Floats
    z: Floats
    scores: Floats
    zs: Floats


@dataclass(frozen=True)
class ScoreProductsPass:
    """A reduce stage. `filters` (C, R, d), `centre` (d,): scores are filter·(z − centre)."""

    filters: Floats
    centre: Floats
    replicates: range

    def start(self) -> ScoreProducts:
        c, r, d = self.filters.shape
        return ScoreProducts(np.zeros(r), np.zeros((r, d)), np.zeros((2, c, r)), np.zeros((c, r, d)))

    def add(self, state: ScoreProducts, batch: pa.RecordBatch) -> ScoreProducts:
        step = max(1, PRODUCT_VALUES // len(self.replicates))
        for block in read_blocks(batch, (), holdout=0):
            weights = poisson_weights(block.groups, self.replicates)
            for start in range(0, len(block), step):
                w = weights[start : start + step].astype(np.float64)
                z = block.latents[start : start + step] - self.centre
                state.n += w.sum(0)
                state.z += w.T @ z
                for i, filters in enumerate(self.filters):
                    s = z @ filters.T
                    ws = w * s
                    state.scores[:, i] += ws.sum(0), np.einsum("ij,ij->j", ws, s)
                    state.zs[i] += ws.T @ z
        return state

    def merge(self, a: ScoreProducts, b: ScoreProducts) -> ScoreProducts:
        return ScoreProducts(a.n + b.n, a.z + b.z, a.scores + b.scores, a.zs + b.zs)


@dataclass(frozen=True)
class WeightedPatterns:
    """A way to replicates (`stages.directions.resampling.Method`): the patterns of another one's filters."""

    filters: Filters
    centre: Floats
    columns: int

    @property
    def bytes_a_replicate(self) -> int:
        return self.filters.bytes_a_replicate + 8 * (2 * self.columns + 1) * len(self.centre)

    def replicates(self, which: range) -> Passes[Any, Drawn]:
        drawn = yield from self.filters.replicates(which)
        there = {i: filters for i, filters in enumerate(drawn) if filters is not None}
        if not there:
            return drawn
        usable = np.stack([np.isfinite(f).all(1) for f in there.values()])
        filters = np.where(usable[:, :, None], np.stack(list(there.values())), 0.0)
        products: ScoreProducts = yield ScoreProductsPass(filters, self.centre, which)
        total, squares = products.scores
        n = np.maximum(products.n, 1)
        along = products.zs - (total / n)[:, :, None] * products.z
        power = squares - total**2 / n
        there_power = np.where(power > 0, power, 1.0)[:, :, None]
        patterns = np.where((power > 0)[:, :, None], along / there_power, np.nan)
        patterned = dict(zip(there, patterns, strict=True))
        return [patterned.get(i) for i in range(len(drawn))]
