"""Gradient-boosted classification trees on codes in bins, all classes' trees of a round grown together.

Friedman (2001) as scikit-learn's GradientBoostingClassifier does it at its defaults: 100 rounds of trees of depth 3, shrunk
by .1, one a class (one in all for two classes), log loss, leaves by one Newton step. Codes are first put into quantile bins,
one a value where there are few: then a split needs sums by bin, not sorted rows, and sums of all classes are one product of
a sparse matrix. On codes of few values both agree but for ties; on others to the width of a bin.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.special import expit, softmax

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
ROUNDS, DEPTH, RATE = 100, 3, 0.1
BINS = 64
TIE, LEAST = 1e-9, 1e-12
"""Relative difference of gains that is rounding, and the gain that is."""


@dataclass(frozen=True, slots=True)
class Boosted:
    """`importances` (d,) sum to 1, or are 0 where nothing was split; `train`, `test`: accuracies."""

    importances: Floats
    train: float
    test: float


def boosted(
    codes: npt.NDArray[Any], levels: Ints, test_codes: npt.NDArray[Any], test_levels: Ints, *, seed: int = 0
) -> Boosted:
    """Trains on codes (n, d) with `levels` (n,) of at least two values; scores the test rows (m, d) along the way.

    The seed settles ties between coordinates that split equally well.
    """
    classes, y = np.unique(levels, return_inverse=True)
    bins, test_bins = _binned(codes, test_codes)
    told = np.eye(len(classes))[y] if len(classes) > 2 else y[:, None].astype(np.float64)
    prior = told.mean(0)
    start = np.log(prior / (1 - prior)) if len(classes) == 2 else np.log(prior)
    score, test_score = np.tile(start, (len(y), 1)), np.tile(start, (len(test_bins), 1))
    onehot = _onehot(bins)
    rng = np.random.default_rng(seed)
    gained = np.zeros(codes.shape[1])
    for _ in range(ROUNDS):
        residual = told - (expit(score) if len(classes) == 2 else softmax(score, axis=1))
        leaf, test_leaf, gain = _grown(onehot, bins, test_bins, residual, rng)
        gained += gain
        step = RATE * _newton(leaf, residual, told)
        columns = np.arange(told.shape[1])
        score += step[leaf, columns]
        test_score += step[test_leaf, columns]
    total = gained.sum()

    def right(scores: Floats, truth: Ints) -> float:
        best = (scores[:, 0] > 0).astype(np.int64) if len(classes) == 2 else scores.argmax(1)
        return float(np.mean(classes[best] == truth))

    return Boosted(gained / total if total > 0 else gained, right(score, levels), right(test_score, test_levels))


def _binned(codes: npt.NDArray[Any], test: npt.NDArray[Any]) -> tuple[Ints, Ints]:
    """Places of the numbers of every coordinate between its quantiles, or between its values where those are few."""
    found, tested = np.empty(codes.shape, np.int64), np.empty(test.shape, np.int64)
    for j in range(codes.shape[1]):
        values = np.unique(codes[:, j].astype(np.float64))
        if len(values) > BINS:
            values = np.unique(np.quantile(codes[:, j].astype(np.float64), np.linspace(0, 1, BINS), method="lower"))
        edges = (values[1:] + values[:-1]) / 2
        found[:, j], tested[:, j] = np.searchsorted(edges, codes[:, j]), np.searchsorted(edges, test[:, j])
    return found, tested


def _onehot(bins: Ints) -> csr_array:
    """(d · BINS, n): which rows are in which bin of which coordinate."""
    n, d = bins.shape
    places = (bins + np.arange(d) * BINS).reshape(-1)
    return csr_array((np.ones(n * d), (places, np.repeat(np.arange(n), d))), shape=(d * BINS, n))


def _grown(
    onehot: csr_array, bins: Ints, test_bins: Ints, residual: Floats, rng: np.random.Generator
) -> tuple[Ints, Ints, Floats]:
    """One tree for every column of residual (n, c): the leaf of every row (n, c), (m, c), and what coordinates gained (d,)."""
    n, classes = residual.shape
    d = bins.shape[1]
    gained = np.zeros(d)
    leaf, test_leaf = np.zeros((n, classes), np.int64), np.zeros((len(test_bins), classes), np.int64)
    sums: list[Floats] = []
    for level in range(DEPTH):
        sums = _by_bin(onehot, leaf, residual, 2**level, sums)
        moved, test_moved = 2 * leaf, 2 * test_leaf
        for node, by_bin in enumerate(sums):
            gain, feature, edge = _best_split(by_bin, d, rng)
            np.add.at(gained, feature, gain / n)
            # Without a gain the edge lies behind the last bin, and all rows go left.
            moved += (leaf == node) & (bins[:, feature] > edge)
            test_moved += (test_leaf == node) & (test_bins[:, feature] > edge)
        leaf, test_leaf = moved, test_moved
    return leaf, test_leaf, gained


def _by_bin(onehot: csr_array, leaf: Ints, residual: Floats, nodes: int, parents: list[Floats]) -> list[Floats]:
    """Rows and residuals of every node by bin, each (2, d · BINS, c): left ones are counted, right ones what is left."""
    found: list[Floats] = []
    for node in range(nodes):
        if node % 2:
            found.append(parents[node // 2] - found[-1])
            continue
        here = (leaf == node).astype(np.float64)
        both = onehot @ np.concatenate([here, here * residual], axis=1)
        found.append(np.stack(np.split(both, 2, axis=1)))
    return found


def _best_split(by_bin: Floats, d: int, rng: np.random.Generator) -> tuple[Floats, Ints, Ints]:
    """For every class: squared error a split takes away, its coordinate, and the last bin that goes left (c,)."""
    classes = by_bin.shape[2]
    rows, sums = (by_bin[i].reshape(d, BINS, classes).cumsum(1) for i in range(2))
    whole, total = rows[0, -1], sums[0, -1]
    other = whole - rows
    usable = (rows > 0.5) & (other > 0.5)
    means = sums / np.maximum(rows, 1) - (total - sums) / np.maximum(other, 1)
    gains = np.where(usable, rows * other / np.maximum(whole, 1) * means**2, 0.0)
    edge = gains.argmax(1)
    best = np.take_along_axis(gains, edge[:, None], axis=1)[:, 0]
    gain = best.max(0)
    # Copies of a coordinate split equally well but for rounding: one of them is drawn, in every node anew.
    feature = np.where(best >= gain * (1 - TIE), rng.random((d, classes)), -1.0).argmax(0)
    some = gain > LEAST
    return np.where(some, gain, 0.0), feature, np.where(some, edge[feature, np.arange(classes)], BINS)


def _newton(leaf: Ints, residual: Floats, told: Floats) -> Floats:
    """What every leaf adds before shrinking (2**DEPTH, c)."""
    classes = residual.shape[1]
    share = np.abs(told - residual)
    curved = share * (1 - share)
    found = np.zeros((2**DEPTH, classes))
    for c in range(classes):
        top = np.bincount(leaf[:, c], residual[:, c], minlength=2**DEPTH)
        bottom = np.bincount(leaf[:, c], curved[:, c], minlength=2**DEPTH)
        np.divide(top, bottom, out=found[:, c], where=bottom > 1e-150)
    return found * ((classes - 1) / classes if classes > 1 else 1.0)
