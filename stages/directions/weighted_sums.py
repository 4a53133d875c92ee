"""Replicates of closed forms, exact: every replicate's estimate from its own weighted sums of a few features a row.

Features are what an estimate is linear in: the classes of each column, the labels of complete rows, or with labels missing
pair by pair each label where it is known. One pass keeps Σω f fᵀ and Σω f zᵀ of every replicate.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from stages.attributes import Column, Floats, LabelCounts
from stages.bootstrap import poisson_weights
from stages.directions.closed_forms import least_squares
from stages.directions.direction import Estimate
from stages.directions.pairwise import Pairs, pairwise_least_squares
from stages.moments import Moments
from stages.rows import Block, read_blocks
from stages.stage import Passes

Features = Callable[[Block], Floats]
"""(rows, F) of a block."""
Drawn = list[Floats | None]
"""Coefficients (replicates, d) by column, rows of NaN where a replicate has none; None for a column without replicates."""
Sums = tuple[Floats, Floats]
"""Σω f fᵀ (replicates, F, F) and Σω f zᵀ (replicates, F, d)."""


@dataclass(frozen=True)
class FeatureSums:
    """A reduce stage over batches with `id`, `latent` and `labels`; `size` is F, `centre` (d,)."""

    columns: tuple[Column, ...]
    features: Features
    size: int
    centre: Floats
    replicates: range

    def start(self) -> Sums:
        r, f = len(self.replicates), self.size
        return np.zeros((r, f, f)), np.zeros((r, f, len(self.centre)))

    def add(self, state: Sums, batch: pa.RecordBatch) -> Sums:
        for block in read_blocks(batch, self.columns, holdout=0):
            z, f = block.latents - self.centre, self.features(block)
            for r, w in enumerate(poisson_weights(block.groups, self.replicates).T):
                weighted = (f * w[:, None]).T
                state[0][r] += weighted @ f
                state[1][r] += weighted @ z
        return state

    def merge(self, a: Sums, b: Sums) -> Sums:
        return a[0] + b[0], a[1] + b[1]


@dataclass(frozen=True)
class WeightedSums:
    """A way to replicates (`stages.directions.resampling.Method`): `solve` makes one replicate's coefficients of its sums."""

    columns: tuple[Column, ...]
    features: Features
    size: int
    centre: Floats
    solve: Callable[[Floats, Floats], Sequence[Floats | None]]

    @property
    def bytes_a_replicate(self) -> int:
        return 8 * self.size * (self.size + len(self.centre))

    def replicates(self, which: range) -> Passes[Any, Drawn]:
        ff, fz = yield FeatureSums(self.columns, self.features, self.size, self.centre, which)
        drawn = np.full((len(self.columns), len(which), len(self.centre)), np.nan)
        for r in range(len(which)):
            for i, coefficients in enumerate(self.solve(ff[r], fz[r])):
                if coefficients is not None:
                    drawn[i, r] = coefficients
        return list(drawn)


# ----------------------------------------------------------------------------------------------- classes


def class_differences(columns: tuple[Column, ...], centre: Floats) -> WeightedSums:
    """m₊ − m₋ of every column."""

    def solve(ff: Floats, fz: Floats) -> list[Floats | None]:
        n = np.diagonal(ff)
        pairs = [(2 * i, 2 * i + 1) for i in range(len(columns))]
        return [fz[p] / n[p] - fz[q] / n[q] if n[p] and n[q] else None for p, q in pairs]

    return WeightedSums(columns, _classes, 2 * len(columns), centre, solve)


def centred_class_means(columns: tuple[Column, ...], centre: Floats) -> WeightedSums:
    """m_c less the mean of the means of all classes of its label that a replicate drew."""

    def of_label(i: int) -> list[int]:
        if columns[i].kind != "category":
            return [2 * i, 2 * i + 1]
        return [2 * j for j, other in enumerate(columns) if other.label == columns[i].label]

    def one(i: int, n: Floats, fz: Floats) -> Floats | None:
        if not n[2 * i] or not n[2 * i + 1]:
            return None
        seen = [j for j in of_label(i) if n[j]]
        return np.asarray(fz[2 * i] / n[2 * i] - (fz[seen] / n[seen, None]).mean(0))

    def solve(ff: Floats, fz: Floats) -> list[Floats | None]:
        return [one(i, np.diagonal(ff), fz) for i in range(len(columns))]

    return WeightedSums(columns, _classes, 2 * len(columns), centre, solve)


def _classes(block: Block) -> Floats:
    """(rows, 2·columns): a column's positives, then its negatives."""
    positive = block.values > 0.5
    classes = np.stack([block.known & positive, block.known & ~positive], axis=2)
    return classes.reshape(len(block), -1).astype(np.float64)


# ----------------------------------------------------------------------------------------------- least squares


def regressed(
    columns: tuple[Column, ...], stored: Sequence[Estimate], centre: Floats, about: Floats, *, l2: float, pairwise: bool
) -> WeightedSums:
    """Forward least squares of the columns that have an estimate. `about` (columns,) is taken from the labels: plain sums of
    labels that lie far from 0 have no digits left for their deviations.
    """
    members = tuple(i for i, e in enumerate(stored) if e.coefficients is not None)
    centred = about[list(members)]
    chosen = [columns[m] for m in members]

    def by_column(estimates: Sequence[Estimate]) -> list[Floats | None]:
        found = {m: e.coefficients for m, e in zip(members, estimates, strict=True)}
        return [found.get(i) for i in range(len(columns))]

    def complete(ff: Floats, fz: Floats) -> list[Floats | None]:
        if ff[0, 0] < 2:
            return [None] * len(columns)
        return by_column(least_squares(_moments(ff, fz), chosen, l2=l2))

    def by_pairs(ff: Floats, fz: Floats) -> list[Floats | None]:
        pairs, counts = _pairs(ff, fz, len(members))
        if (np.diagonal(pairs.scatter) <= 0).any():
            return [None] * len(columns)
        return by_column(pairwise_least_squares(pairs, counts, chosen, l2=l2))

    if pairwise:
        return WeightedSums(columns, partial(_known_labels, members, centred), 2 * len(members), centre, by_pairs)
    return WeightedSums(columns, partial(_complete_labels, members, centred), 1 + len(members), centre, complete)


def _complete_labels(members: Sequence[int], about: Floats, block: Block) -> Floats:
    """(rows, 1 + members): 1 and the labels of rows that know them all, 0 of the others."""
    complete = block.known[:, list(members)].all(axis=1, keepdims=True)
    return np.hstack([complete, (block.values[:, list(members)] - about) * complete])


def _known_labels(members: Sequence[int], about: Floats, block: Block) -> Floats:
    """(rows, 2·members): which labels a row knows, and their values."""
    known = block.known[:, list(members)]
    return np.hstack([known, (block.values[:, list(members)] - about) * known])


def _moments(ff: Floats, fz: Floats) -> Moments:
    """The weighted rows as a statistic, about the pass's centre. Σzzᵀ is not kept: it would serve standard errors alone."""
    n, y, z = ff[0, 0], ff[0, 1:], fz[0]
    return Moments(
        n=round(n),
        origin=np.zeros(len(z) + len(y)),
        offset=np.concatenate([z, y]) / n,
        zz=np.zeros(len(z)),
        zy=(fz[1:] - np.outer(y, z) / n).T,
        yy=ff[1:, 1:] - np.outer(y, y) / n,
    )


def _pairs(ff: Floats, fz: Floats, members: int) -> tuple[Pairs, LabelCounts]:
    """As `_moments`, with labels missing."""
    n, sums, products = ff[:members, :members], ff[members:, :members], ff[members:, members:]
    size = np.maximum(n, 1)
    own, total = np.diagonal(size), np.diagonal(sums)
    mean = sums / size  # of label a over the rows that know b too
    pairs = Pairs(
        n=np.rint(n).astype(np.int64),
        mean=mean,
        scatter=products - mean * sums.T,
        z_origin=np.zeros(fz.shape[1]),
        z_offset=fz[:members] / own[:, None],
        zy=fz[members:] - (total / own)[:, None] * fz[:members],
    )
    known, positive = np.diagonal(pairs.n).copy(), np.rint(total).astype(np.int64)
    zero = np.zeros(members)
    return pairs, LabelCounts(int(known.max(initial=0)), known, positive, zero, zero + 1)
