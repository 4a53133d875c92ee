"""Poisson bootstrap: every replicate weighs a group of rows by a Poisson(1) number that follows from the group's hash.

Hanley & MacGibbon (2006), Chamandy et al. (2012). The weights need no bookkeeping: they are the same on every machine, in any
order of rows, on any split and after any retry, so weighted sums of parts add up to those of the whole. Rows that belong
together (pictures of one person) share a hash, and so a weight; without that an interval is too narrow.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

from stages.row_hash import Hashes, salted

Weights = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

_LANES = 4
"""Weights made from one 64-bit hash: 16 bits each."""


def poisson_weights(group_hashes: Hashes, replicates: int | range, *, seed: int = 0) -> Weights:
    """(rows, replicates): Poisson(1) weights of rows whose groups have these hashes (`stages.row_hash.hash_ids`).

    A replicate's weights do not depend on how many replicates there are; a range asks for some of them. Probabilities are
    multiples of 2⁻¹⁶, so the mean is 1 and the variance 1 to within 1e-4.
    """
    wanted = range(replicates) if isinstance(replicates, int) else replicates
    weights = np.empty((len(group_hashes), len(wanted)), np.uint8)
    for word in range(wanted.start // _LANES, -(-wanted.stop // _LANES)):
        mixed = salted(group_hashes, f"bootstrap {seed} {word}")
        for lane in range(_LANES):
            replicate = word * _LANES + lane
            if replicate in wanted:
                weights[:, wanted.index(replicate)] = _POISSON[(mixed >> np.uint64(16 * lane)) & np.uint64(0xFFFF)]
    return weights


def percentile_interval(values: Floats | Sequence[float], *, confidence: float) -> tuple[float, float] | None:
    """(low, high): the middle `confidence` of replicates' values; non-finite ones are left out.

    None when fewer than three quarters of the replicates have a value, or fewer than ten: the interval would be a guess.
    (What stands on one group alone is in 63 % of the replicates, on two in 86 %.)
    """
    given = np.asarray(values, np.float64)
    kept = given[np.isfinite(given)]
    if len(kept) < max(10, 3 * len(given) / 4):
        return None
    tail = (1 - confidence) / 2
    # The (R + 1)α rule: the extremes of few replicates lie inside the distribution's, so plain quantiles are too narrow.
    low, high = np.quantile(kept, [tail, 1 - tail], method="weibull")
    return float(low), float(high)


def expanded(confidence: float, images: float) -> float:
    """What to ask of percentiles of so many independent images: their spread is too small by √((n − 1)/n), and Student's reach wider.

    The expanded percentile interval of Hesterberg (2015). Of twelve images plain percentiles held an effect 89 times in 100.
    """
    reach = stats.t.ppf((1 + confidence) / 2, images - 1) * math.sqrt(images / (images - 1))
    return float(1 - 2 * stats.norm.sf(reach))


def _poisson_table() -> Weights:
    """The inverse of the distribution function of Poisson(1) at (i + ½)/65536."""
    steps = np.cumsum([math.exp(-1) / math.factorial(k) for k in range(12)])
    return np.searchsorted(steps, (np.arange(2**16) + 0.5) / 2**16).astype(np.uint8)


_POISSON = _poisson_table()
