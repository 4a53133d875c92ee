"""β-VAE score (Higgins et al. 2017): from how far pairs that share one factor lie apart, can a linear model name the factor?

A point is the mean |Δz| of a batch of pairs that agree in one factor; a logistic regression names the factor, and is scored
on new points. Chance is one over the number of factors; a rotation within a pair of factors hardly lowers it.
"""

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from stages.scores.factor_sampling import FactorSampler, draw_levels
from stages.scores.factor_vae import BATCH, VOTES
from stages.scores.information import Floats


def beta_vae_score(
    sampler: FactorSampler, rng: np.random.Generator, *, batch: int = BATCH, votes: tuple[int, int] = VOTES
) -> float:
    """Accuracy on new points, in [0, 1]. ValueError for a single factor: there is nothing to tell apart."""
    if len(sampler.sizes) < 2:
        raise ValueError("1 factor; the β-VAE score needs at least 2 to tell apart")
    points, factors = _points(sampler, rng, batch, votes[0])
    model = LogisticRegression(max_iter=1000).fit(points, factors)
    points, factors = _points(sampler, rng, batch, votes[1])
    return float(np.mean(model.predict(points) == factors))


def _points(
    sampler: FactorSampler, rng: np.random.Generator, batch: int, count: int
) -> tuple[Floats, npt.NDArray[np.int64]]:
    """(count, d) mean absolute differences, and the factor that each kept."""
    points, factors = [], np.empty(count, np.int64)
    for i in range(count):
        factors[i] = factor = int(rng.integers(len(sampler.sizes)))
        one, other = draw_levels(sampler, batch, rng), draw_levels(sampler, batch, rng)
        other[:, factor] = one[:, factor]
        apart = sampler.codes(one, rng).astype(np.float64) - sampler.codes(other, rng)
        points.append(np.abs(apart).mean(0))
    return np.stack(points), factors
