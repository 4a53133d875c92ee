"""Paths of codes that are more than one plain vector: a posterior's mean and spread, a semantic part and a noise part.

Posterior: between diagonal Gaussians the mean and the standard deviation go straight, (1−t)μ_a + tμ_b and (1−t)σ_a + tσ_b: the
Wasserstein-2 geodesic. A straight line of logvar would sag to the geometric mean of the σ (latent-science §2).
Two parts (DiffAE, Preechakul et al. 2022): the semantic part by lerp, the noise part by slerp.
"""

import numpy as np
import numpy.typing as npt

from stages.code_sets.interpolation import Antipodal, lerp, slerp
from stages.code_sets.path import Path, PathStatus, ends_of, times_of


def posterior(
    mean_a: npt.ArrayLike,
    mean_b: npt.ArrayLike,
    logvar_a: npt.ArrayLike,
    logvar_b: npt.ArrayLike,
    t: npt.ArrayLike,
    *,
    noise: npt.ArrayLike,
) -> Path:
    """μ_t + σ_t·ε, with μ and σ = exp(logvar/2) each by lerp. Ends: (n, *shape); `noise` ε (n, *shape), one draw for a whole path.

    The same ε along a path is what makes it a path: every frame is one draw of its own posterior, and the draws move together.
    """
    means, logvars = ends_of(mean_a, mean_b), ends_of(logvar_a, logvar_b)
    mean = lerp(means.values[:, 0], means.values[:, 1], t).values
    with np.errstate(over="ignore"):  # an absurd logvar ends as infinity, which the codes batch flags
        sigmas = np.exp(logvars.values / 2)
    epsilon = np.asarray(noise, np.float64).reshape(means.values[:, 0].shape)
    times = times_of(t)
    sigma = (1 - times)[:, None] * sigmas[:, :1] + times[:, None] * sigmas[:, 1:]
    status = np.where(logvars.finite, means.statuses(), PathStatus.NAN_INPUT)
    return means.path(mean + sigma * epsilon[:, None, :], status)


def two_part(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    t: npt.ArrayLike,
    *,
    split: int,
    antipodal: Antipodal = "flag",
    seeds: npt.ArrayLike | None = None,
) -> Path:
    """The first `split` numbers by lerp, the others by slerp. a, b: (n, *shape), cut in their flattened order.

    A row is as bad as the worse of its parts. Raises ValueError unless both parts have a number at least.
    """
    ends = ends_of(a, b)
    size = ends.values.shape[2]
    if not 0 < split < size:
        raise ValueError(f"split must be from 1 to {size - 1}, got {split}")
    # Rows that are not finite hold zeros here; `ends` says so of them.
    semantic = lerp(ends.values[:, 0, :split], ends.values[:, 1, :split], t)
    noise = slerp(ends.values[:, 0, split:], ends.values[:, 1, split:], t, antipodal=antipodal, seeds=seeds)
    status = np.where(ends.finite, noise.status, PathStatus.NAN_INPUT)
    return ends.path(np.concatenate([semantic.values, noise.values], axis=2), status)
