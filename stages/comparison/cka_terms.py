"""Linear CKA without its bias, and how uncertain it is, from six numbers a row: at any width, in the memory of those six.

‖S‖² of a covariance of n rows is too large by what rows have with themselves. Song et al. (2012) take that out exactly, for
‖Σ_xy‖², ‖Σ_xx‖² and ‖Σ_yy‖² alike, with Σ|x|², Σ|y|² and Σ|x|²|y|² alone: a U-statistic, unbiased at any n. The ratio
θ = a/√(bc) of the three moves with a row by θ(2α/a − β/b − γ/c)/n, to first order, where α = x'C_xy y − |x|²|y|²/n is what the row adds
to a, β and γ likewise: their deviation is the interval. Rows about their means; C the covariances.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from stages.comparison.paired import Joint
from stages.moments import Moments

FEWEST = 10


@dataclass(frozen=True, slots=True)
class Unbiased:
    """`value` without its bias, within [0, 1] as its interval is."""

    value: float
    low: float
    high: float


def cka_terms(rows: npt.NDArray[np.floating], joint: Joint) -> Moments:
    """Of rows [x | y] (n, d_x + d_y): α, β, γ and |x|²|y|², |x|⁴, |y|⁴ of each."""
    dim = len(joint.x_mean)
    x, y = rows[:, :dim] - joint.x_mean, rows[:, dim:] - joint.y_mean
    xx, yy = np.einsum("ij,ij->i", x, x), np.einsum("ij,ij->i", y, y)
    own = np.stack([xx * yy, xx**2, yy**2], axis=1)
    with_all = [
        np.einsum("ij,ij->i", a @ scatter, b)
        for a, scatter, b in ((x, joint.xy, y), (x, joint.xx, x), (y, joint.yy, y))
    ]
    return Moments.of(np.concatenate([(np.stack(with_all, axis=1) - own) / joint.n, own], axis=1), full=True)


def unbiased_cka(joint: Joint, terms: Moments, *, confidence: float) -> Unbiased | None:
    """None of fewer than FEWEST rows, or where what is left of a space without its bias is no variance."""
    n = joint.n
    if n < FEWEST:
        return None
    traces = float(np.trace(joint.xx)), float(np.trace(joint.yy))
    pairs = ((joint.xy, *traces), (joint.xx, traces[0], traces[0]), (joint.yy, traces[1], traces[1]))
    squares = [
        _unbiased(float((scatter**2).sum()), n * float(own), one, other, n)
        for (scatter, one, other), own in zip(pairs, terms.z_mean[3:], strict=True)
    ]
    if min(squares[1:]) <= 0:
        return None
    value = squares[0] / math.sqrt(squares[1] * squares[2])
    # θ·2α/a without dividing by a, which may be 0 or below.
    gradient = np.array([2 / math.sqrt(squares[1] * squares[2]), -value / squares[1], -value / squares[2]])
    variance = max(float(gradient @ terms.zz[:3, :3] @ gradient), 0.0) / (n - 1)
    reach = float(stats.t.ppf(0.5 + confidence / 2, n - 1)) * math.sqrt(variance / n)
    low, middle, high = (min(max(v, 0.0), 1.0) for v in (value - reach, value, value + reach))
    return Unbiased(middle, low, high)


def _unbiased(square: float, own: float, one: float, other: float, n: int) -> float:
    """Of ‖Σ‖², from ‖S‖² of the scatter, Σ|x|²|y|², Σ|x|² and Σ|y|²."""
    whole = square - own + one * other / ((n - 1) * (n - 2)) - 2 * own / (n - 2)
    return whole / (n * (n - 3))
