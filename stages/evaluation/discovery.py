"""Which of many effects are real: p-values from bootstrap replicates and Benjamini–Hochberg over all of them."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from stages.attributes import Floats


def p_value(value: float, replicates: Floats, images: float = math.inf) -> float | None:
    """Two-sided, of "the effect is 0", by Student's law of so many independent images with the replicates' spread.

    Their spread is too small by √((n − 1)/n). None without spread to judge by.
    """
    kept = replicates[np.isfinite(replicates)]
    if len(kept) < 10 or not np.isfinite(value):
        return None
    error = float(kept.std(ddof=1))
    if error <= 1e-12 * abs(value):
        return 0.0 if value else 1.0  # the same on every image: no sampling error at all
    reach = abs(value) / error
    if not math.isfinite(images):
        return math.erfc(reach / math.sqrt(2))
    return float(2 * stats.t.sf(reach * math.sqrt((images - 1) / images), images - 1))


def benjamini_hochberg(p_values: Sequence[float | None]) -> list[float | None]:
    """q-values: the smallest false-discovery rate at which each is still a discovery (Benjamini & Hochberg 1995).

    None stays None and does not count as a test.
    """
    tested = [i for i, p in enumerate(p_values) if p is not None]
    given = np.array([p_values[i] for i in tested], np.float64)
    order = np.argsort(given, kind="stable")[::-1]
    ranks = np.arange(len(given), 0, -1)
    adjusted = np.minimum(np.minimum.accumulate(given[order] * len(given) / ranks), 1.0) if len(given) else given
    found: list[float | None] = [None] * len(p_values)
    for at, q in zip(order, adjusted, strict=True):
        found[tested[at]] = float(q)
    return found
