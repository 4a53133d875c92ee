"""Delete-group jackknife: an interval and a bias correction for what is computed from sums, without drawing anything anew.

Rows are dealt to G groups by hash; the statistic is computed once of all rows and once without each group. With n rows in all,
m_j in group j and h_j = n/m_j, the corrected value is  Gθ − Σ(1 − m_j/n)θ₋ⱼ  and the variance the mean of
(h_jθ − (h_j − 1)θ₋ⱼ − corrected)²/(h_j − 1)  (Busing, Meijer and van der Leeden 1999, for groups of unequal size). What a statistic
owes to n as 1/n, as a Fréchet distance does, leaves with the correction; what remains falls as 1/n².
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

LEAST_GROUPS = 5
"""With fewer, Student's quantile is so wide that the interval says nothing."""


@dataclass(frozen=True, slots=True)
class Jackknifed:
    """`corrected`: the value without its 1/n bias; the interval lies about it, not about the plain value."""

    corrected: float
    low: float
    high: float
    groups: int


def jackknife(
    whole: float, without: Sequence[float], sizes: Sequence[int], *, confidence: float, bounds: tuple[float, float]
) -> Jackknifed | None:
    """`without`: the statistic without each group of `sizes` rows. `bounds`: the values that the statistic can have.

    None with fewer than LEAST_GROUPS groups, or where a value is not finite: the interval would be a guess.
    """
    left_out, m = np.asarray(without, np.float64), np.asarray(sizes, np.float64)
    if len(m) < LEAST_GROUPS or not (np.isfinite(left_out).all() and math.isfinite(whole)):
        return None
    h = m.sum() / m
    corrected = float(len(m) * whole - ((1 - 1 / h) * left_out).sum())
    pseudo = h * whole - (h - 1) * left_out
    deviation = math.sqrt(float(((pseudo - corrected) ** 2 / (h - 1)).mean()))
    reach = float(stdtrit(len(m) - 1, 0.5 + confidence / 2)) * deviation
    lowest, highest = bounds
    inside = [min(max(v, lowest), highest) for v in (corrected, corrected - reach, corrected + reach)]
    return Jackknifed(inside[0], inside[1], inside[2], len(m))
