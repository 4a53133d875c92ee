"""Mutual information of code dimensions and factors, from a histogram of each: what MIG and modularity are made of.

The plug-in estimate in nats, over a 20-bin histogram of every dimension (disentanglement_lib's discretiser). It is biased
upwards by about (k−1)(m−1)/2N for k bins and m levels (Miller 1955): `information_bias`; a permutation null shows it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Levels = npt.NDArray[np.int64]

BINS = 20
UNKNOWN = -1
"""The level of a factor whose label is missing: the row leaves that factor's numbers, and only those."""

_BLOCK = 2**24


@dataclass(frozen=True, slots=True)
class Information:
    """`mutual` (d, f) nats between dimension and factor; `entropy` (f,) nats and `n` (f,) rows of each factor."""

    mutual: Floats
    entropy: Floats
    n: npt.NDArray[np.int64]


def histogram_bins(columns: npt.NDArray[Any], *, bins: int = BINS) -> Levels:
    """The bin, 0 to bins − 1, of every value in its own column's histogram of equal widths, (n, d).

    A value on an inner edge belongs to the bin above it; a constant column lies in one bin. n ≥ 1.
    """
    found = np.empty(columns.shape, np.int64)
    for j, column in enumerate(columns.T):
        wide = column.astype(np.float64)
        if np.ptp(wide) < 4 * bins * np.spacing(np.abs(wide).max()):
            # So narrow that its bins could not be told apart: every value is a bin of its own.
            found[:, j] = np.minimum(np.unique(wide, return_inverse=True)[1], bins - 1)
            continue
        found[:, j] = np.digitize(wide, np.histogram_bin_edges(wide, bins)[:-1]) - 1
    return found


def information(bins: Levels, levels: Levels) -> Information:
    """Information between binned dimensions `bins` (n, d) and factor `levels` (n, f), each ≥ 0 or UNKNOWN.

    ValueError for a factor with fewer than two levels: it has no entropy to explain.
    """
    d, f = bins.shape[1], levels.shape[1]
    mutual, entropy, n = np.empty((d, f)), np.empty(f), np.empty(f, np.int64)
    width = int(bins.max(initial=0)) + 1
    for j, factor in enumerate(levels.T):
        known = factor >= 0
        n[j] = known.sum()
        _, level, counts = np.unique(factor[known], return_inverse=True, return_counts=True)
        if len(counts) < 2:
            raise ValueError(f"factor {j} has {len(counts)} levels in {n[j]} rows; a score needs at least 2")
        entropy[j] = -np.sum(counts / n[j] * np.log(counts / n[j]))
        mutual[:, j] = _mutual(bins[known], level, width=width, levels=len(counts))
    return Information(mutual, entropy, n)


def information_bias(bins: int, levels: int, n: int) -> float:
    """What the plug-in estimate of two independent variables is on average, in nats: (k−1)(m−1)/2N."""
    return (bins - 1) * (levels - 1) / (2 * n)


def _mutual(bins: Levels, level: Levels, *, width: int, levels: int) -> Floats:
    """(d,) nats, from one table of joint counts a dimension."""
    n, d = bins.shape
    found = np.empty(d)
    for start in range(0, d, step := max(1, _BLOCK // n)):
        block = bins[:, start : start + step]
        cells = (np.arange(block.shape[1]) * width + block) * levels + level[:, None]
        joint = np.bincount(cells.ravel(), minlength=block.shape[1] * width * levels)
        joint = joint.reshape(-1, width, levels) / n
        apart = joint.sum(2, keepdims=True) * joint.sum(1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            nats = np.where(joint > 0, joint * np.log(joint / apart), 0).sum((1, 2))
        found[start : start + step] = nats
    # What rounding leaves of independence must not look like information: modularity divides by it.
    found[found < 64 * np.finfo(np.float64).eps] = 0
    return found
