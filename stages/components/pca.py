"""PCA and whitening of the latents: the directions of largest variance.

`pca` stores unit vectors v; a row's score is vᵀ(z−μ). `whitening` stores the same vectors with `raw_norm` 1/√λ, so that the
stored scores raw_norm·vᵀz + intercept have unit variance and no correlation: stacked, they are the whitening matrix
Λ^(−½)Vᵀ, on the rank of the rows. Components beyond the rank are a typed status, never a division by rounding.
"""

from collections.abc import Sequence

import numpy as np

from schemas.steps import ComponentsStep
from stages.components.found import Found, Rows, beyond_rank, direction, failed, measured, words
from stages.components.over_latents import Over
from stages.components.principal import Limits, Principal, principal
from stages.directions.direction import FitStatus
from stages.stage import Passes


def pca(step: ComponentsStep, names: Sequence[str], over: Over, *, dim: int, limits: Limits) -> Passes[object, Found]:
    """`names`: of the components, at most `dim`."""
    # One more than is stored, to know whether the last one is told apart from what comes after it.
    found: Principal = yield from principal(
        over, dim=dim, count=len(names) + 1, limits=limits, seed=step.seed, passes=step.passes
    )
    eigen = found.eigen
    rows = Rows(found.n, found.non_finite, found.mean, np.sqrt(np.maximum(eigen.values, 0)))
    if found.n < 2:
        return failed(step.estimator, names, rows, FitStatus.TOO_FEW if found.n else FitStatus.NO_ROWS)
    if not eigen.rank:
        return failed(step.estimator, names, rows, FitStatus.CONSTANT)
    directions = []
    for i, name in enumerate(names):
        if i >= eigen.rank:
            directions.append(beyond_rank(name, step.estimator, rows))
            continue
        vector = eigen.vectors[i]
        scale = 1.0 if step.estimator == "pca" else 1 / float(rows.sigma[i])
        intercept = -float(vector @ found.mean) * scale
        _, message = words(eigen, i, n=found.n)
        directions.append(
            direction(name, step.estimator, vector, rows, i, raw_norm=scale, intercept=intercept, message=message)
        )
    told = measured(eigen, names, rows, metric="explained_variance", total=found.total, unit="latent²", estimated=True)
    return Found(tuple(directions), told)
