"""Area under the ROC curve from two mergeable histograms, with DeLong's interval (DeLong, DeLong, Clarke-Pearson 1988).

A bin holds the scores that share the upper 14 bits of their float16 form, so its width is 1/512 to 1/256 of the score:
scores are to be centred and scaled to order 1. Scores in one bin count as ties, which half of them win: the area is off by at
most half of Σ p₊p₋ over bins, in practice below 1e-4. Bins are the same for every split, so merging is adding.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

BINS = 2**14
_LARGEST = 65504.0  # of a float16

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Area:
    """P(score of a positive > score of a negative) + half of the ties, with its interval; all in [0, 1]."""

    value: float
    low: float
    high: float


def bins_of(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """The bin of every score, in [0, BINS), in the scores' order; any shape. Scores must not be NaN."""
    # + 0.0 makes −0 the same number as 0.
    bits = (np.clip(scores, -_LARGEST, _LARGEST) + 0.0).astype(np.float16).view(np.uint16)
    ordered = np.where(bits & 0x8000, ~bits, bits | 0x8000)
    return (ordered >> 2).astype(np.int64)


def area(positive: Counts, negative: Counts, *, confidence: float) -> Area | None:
    """From counts (bins,) of each class. None when a class has fewer than two rows, which leave its spread unknown.

    The interval is symmetric on the logit scale, so it stays inside [0, 1]. For perfectly parted classes DeLong's variance
    is 0; then the bound is that of the smaller class's rows as independent trials without a failure.
    """
    n_positive, n_negative = int(positive.sum()), int(negative.sum())
    if min(n_positive, n_negative) < 2:
        return None
    below = np.cumsum(negative) - negative
    above = n_positive - np.cumsum(positive)
    won = (below + negative / 2) / n_negative  # by a positive in each bin
    lost = (above + positive / 2) / n_positive  # by a negative in each bin
    value = float(positive @ won) / n_positive
    spread = positive @ (won - value) ** 2 / (n_positive - 1) / n_positive
    spread += negative @ (lost - value) ** 2 / (n_negative - 1) / n_negative
    return _interval(value, float(spread), min(n_positive, n_negative), confidence)


def _interval(value: float, variance: float, smaller: int, confidence: float) -> Area:
    if not 0 < value < 1:
        bound = ((1 - confidence) / 2) ** (1 / smaller)
        return Area(1.0, bound, 1.0) if value >= 1 else Area(0.0, 0.0, 1 - bound)
    logit = np.log(value / (1 - value))
    reach = normal_quantile(confidence) * np.sqrt(variance) / (value * (1 - value))
    low, high = (float(1 / (1 + np.exp(-x))) for x in (logit - reach, logit + reach))
    return Area(value, low, high)


def normal_quantile(confidence: float) -> float:
    """How many standard errors a two-sided interval of `confidence` in (0, 1) reaches."""
    return NormalDist().inv_cdf((1 + confidence) / 2)
