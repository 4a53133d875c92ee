"""Interventional robustness (Suter et al. 2019): does a dimension hold still while everything but its factor changes?

For each level of a factor: the 99 % quantile of the deviation from that level's mean; averaged over levels and divided by
the dimension's largest deviation. 1 less that, for the factor that fits the dimension best, weighted by deviation. Noise does
not score 0 (about .3 for Gaussian rows): read it against its null.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stages.scores.information import BINS, Floats, Levels, histogram_bins

QUANTILE = 0.99


@dataclass(frozen=True, slots=True)
class Robustness:
    """`score` in [0, 1]; of the dimensions that vary, `dimensions` (a,): `matrix` (a, f) and `weight` (a,)."""

    score: float
    dimensions: npt.NDArray[np.int64]
    matrix: Floats
    weight: Floats


def interventional_robustness(
    codes: npt.NDArray[Any], levels: Levels, *, quantile: float = QUANTILE, bins: int = BINS
) -> Robustness:
    """Of codes (n, d) and factor levels (n, f), unknown ones left out of their factor.

    A factor of more than `bins` levels is binned first. Constant dimensions are left out; none varies: score 0.
    """
    wide = codes.astype(np.float64)
    active = np.flatnonzero(wide.var(0) > 0)
    wide = wide[:, active]
    most = np.abs(wide - wide.mean(0)).max(0, initial=0)
    spread = np.zeros((len(active), levels.shape[1]))
    for j, factor in enumerate(levels.T):
        known = np.flatnonzero(factor >= 0)
        if not len(known):
            raise ValueError(f"factor {j} is known in no row")
        binned = histogram_bins(factor[known, None], bins=bins)[:, 0]
        order = known[np.argsort(binned, kind="stable")]
        groups = np.split(order, np.flatnonzero(np.diff(np.sort(binned))) + 1)
        for rows in groups:
            off = np.abs(wide[rows] - wide[rows].mean(0))
            spread[:, j] += np.quantile(off, quantile, axis=0) / len(groups)
    if not len(active):
        return Robustness(0.0, active, spread, most)
    matrix = 1 - spread / most[:, None]
    return Robustness(float(np.average(matrix.max(1), weights=most)), active, matrix, most)
