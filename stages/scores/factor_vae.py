"""FactorVAE score (Kim and Mnih 2018): hold one factor still; does the dimension that varies least give it away?

A vote: fix one factor in a batch, take the dimension with the least variance over its global variance. A majority table
learned on one set of votes is scored on another. Chance is about one over the number of factors, not 0; and of a rotated
pair of factors the vote may still be right, so the score does not measure axes.
"""

import numpy as np
import numpy.typing as npt

from stages.scores.factor_sampling import FactorSampler, draw_codes, draw_levels
from stages.scores.information import Floats

BATCH = 64
VOTES = (10_000, 5_000)
VARIANCE_ROWS = 10_000
IDLE = 0.05
"""Dimensions whose standard deviation is below this are pruned: their ratio of variances is noise."""


def factor_vae_score(
    sampler: FactorSampler,
    rng: np.random.Generator,
    *,
    batch: int = BATCH,
    votes: tuple[int, int] = VOTES,
    variance_rows: int = VARIANCE_ROWS,
) -> float:
    """Accuracy on the second set of votes, in [0, 1]; 0 when no dimension is active."""
    variance = draw_codes(sampler, variance_rows, rng).var(0, ddof=1)
    active = np.flatnonzero(np.sqrt(variance) >= IDLE)
    if not len(active):
        return 0.0
    learned = _table(sampler, rng, batch, votes[0], active, variance)
    scored = _table(sampler, rng, batch, votes[1], active, variance)
    return float(scored[learned.argmax(0), np.arange(len(active))].sum() / votes[1])


def _table(
    sampler: FactorSampler,
    rng: np.random.Generator,
    batch: int,
    count: int,
    active: npt.NDArray[np.int64],
    variance: Floats,
) -> npt.NDArray[np.int64]:
    """Votes (f, active dimensions): how often fixing a factor made a dimension the stillest."""
    table = np.zeros((len(sampler.sizes), len(active)), np.int64)
    for _ in range(count):
        factor = int(rng.integers(len(sampler.sizes)))
        levels = draw_levels(sampler, batch, rng)
        levels[:, factor] = levels[0, factor]
        codes = sampler.codes(levels, rng)[:, active].astype(np.float64)
        table[factor, np.argmin(codes.var(0, ddof=1) / variance[active])] += 1
    return table
