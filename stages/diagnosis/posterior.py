"""How a codec uses its coordinates: KL per dimension, active units, posterior width, collapse.

KL(N(μ, σ²) ‖ N(0, 1)) = ½(μ² + σ² − 1 − log σ²), in nats. An active unit has Var_x(E[z_j|x]) > .01 (Burda, Grosse,
Salakhutdinov 2016). A coordinate is collapsed when its KL and what the decoder does with it are both near zero: a low KL alone
may be a coordinate that holds little, and a deaf decoder alone may be one whose encoder still writes.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.diagnosis.scan import Scanned

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

THRESHOLDS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
"""At which active units are counted, to show what the usual .01 hides."""


def kl_per_dimension(scanned: Scanned) -> Floats | None:
    """Mean KL of every coordinate in nats (d,), or None where no posterior is stored."""
    sums, moments = scanned.posterior, scanned.moments
    if sums is None or not scanned.n:
        return None
    n = scanned.n
    second = moments.zz / n + moments.z_mean**2
    return np.maximum(0.5 * (second + sums.variance / n - 1 - sums.logvar / n), 0.0)


def total_kl(scanned: Scanned) -> tuple[float, float] | None:
    """Mean KL of a row in nats and the standard error of that mean; None where no posterior is stored."""
    sums, n = scanned.posterior, scanned.n
    if sums is None or n < 2:
        return None
    mean = sums.kl / n
    return mean, math.sqrt(max(sums.kl_squared / n - mean**2, 0.0) / (n - 1))


def posterior_std(scanned: Scanned) -> Floats | None:
    """Mean posterior standard deviation of every coordinate (d,)."""
    return None if scanned.posterior is None else scanned.posterior.std / scanned.n


@dataclass(frozen=True)
class ActiveUnits:
    """`count` coordinates vary more than `threshold`; `curve`: the count at each of THRESHOLDS.

    `low`, `high`: the count at three times the threshold and at a third of it.
    """

    count: int
    threshold: float
    low: int
    high: int
    curve: tuple[tuple[float, int], ...]


def active_units(variances: Floats, threshold: float) -> ActiveUnits:
    """Active units among the coordinates' variances (d,)."""

    def above(value: float) -> int:
        return int((variances > value).sum())

    curve = tuple((t, above(t)) for t in THRESHOLDS)
    return ActiveUnits(above(threshold), threshold, above(3 * threshold), above(threshold / 3), curve)


def collapsed(kl: Floats, sensitivity: Floats, *, nats: float) -> Bools:
    """Coordinates with both under `nats`. `sensitivity` (d,) in nats, NaN where it was not measured: never collapsed."""
    with np.errstate(invalid="ignore"):
        return (kl < nats) & (sensitivity < nats)


def sensitivity_nats(change: Floats, *, noise: float) -> Floats:
    """½ log(1 + ‖ΔD‖²/v): what a step of one σ along a coordinate can say through the decoder, in nats (d,).

    `change`: mean ‖D(z + σ_j e_j) − D(z)‖² over codes, in squared grey levels; `noise`: v, the variance of what cannot be
    seen. 1/12 is that of rounding to whole grey levels, the least there is.
    """
    return np.asarray(0.5 * np.log1p(change / noise))
