"""Distributions that samples are drawn from: a Gaussian, or a mixture of Gaussians fitted to a bounded sample of the data.

A mixture is scikit-learn's, fitted once, on the driver, to rows chosen by a hash of their id: an approximation of a fit to all
rows, of bounded cost, that does not depend on how rows are split.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from schemas.errors import JobError
from schemas.steps import Covariance
from stages.code_sets.gaussian import Gaussian

Array = npt.NDArray[np.float64]

FLOOR = 1e-6
"""Added to a component's variances, as a share of the data's mean variance: a component on few rows must not collapse."""
WORTH_THREADS = 1e9
"""Multiplications of one component's step (rows × d²) below which threads wait for each other longer than they work."""


class Distribution(Protocol):
    def draw(self, numbers: npt.NDArray[np.int64], places: Array, noise: Array, *, temperature: float) -> Array:
        """One draw a row (n, d): of its number (n,), a number in [0, 1) (n,), and standard normal noise (n, d), scaled by `temperature`."""


@dataclass(frozen=True, eq=False)
class Mixture:
    """`components` with their `weights` (k,), which sum to 1; one component is a plain Gaussian."""

    weights: Array
    components: tuple[Gaussian, ...]

    @classmethod
    def of(cls, gaussian: Gaussian) -> "Mixture":
        return cls(np.ones(1), (gaussian,))

    def draw(self, numbers: npt.NDArray[np.int64], places: Array, noise: Array, *, temperature: float) -> Array:
        """One draw a row: `places` (n,) in [0, 1) choose the component, `noise` (n, d) is standard normal; `numbers` are not used."""
        chosen = np.minimum(np.searchsorted(np.cumsum(self.weights), places, side="right"), len(self.weights) - 1)
        drawn = np.empty_like(noise)
        for i, gaussian in enumerate(self.components):
            mine = chosen == i
            drawn[mine] = gaussian.mean + temperature * gaussian.spread(noise[mine])
        return drawn


@dataclass(frozen=True, eq=False)
class FittedMixture:
    """A mixture, the rows it was fitted to, their mean log-density in nats, and whether EM converged."""

    mixture: Mixture
    rows: int
    log_density: float
    converged: bool


def fit_mixture(
    latents: npt.NDArray[np.float32], *, components: int, covariance: Covariance, seed: int, at: str, rounds: int = 200
) -> FittedMixture:
    """Fits a mixture to rows (n, d) by at most `rounds` of EM. Raises JobError when there are fewer rows than components, or they do not vary."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    if len(latents) <= components:
        fix = "use fewer components, or more images"
        raise JobError.one(f"{at}.components", components, f"there are {len(latents)} rows with latents.", fix)
    rows = latents.astype(np.float64)
    centre, scale = rows.mean(0), float(np.sqrt(rows.var(0).mean()))
    if not scale > 0:
        raise JobError.one(f"{at}.method", "gmm", "the rows' latents are all the same.", "choose other rows")
    # Fitted in units of the data's own spread, so that the floor and EM's tolerance mean the same for every codec.
    model = GaussianMixture(
        components,
        covariance_type="full" if covariance == "full" else "diag",
        reg_covar=FLOOR,
        random_state=seed % 2**32,
        max_iter=rounds,
    )
    threads = None if rows.shape[0] * rows.shape[1] ** 2 >= WORTH_THREADS else 1
    scaled = (rows - centre) / scale
    with warnings.catch_warnings(), threadpool_limits(threads):
        warnings.simplefilter("ignore", ConvergenceWarning)  # said in the result instead
        model.fit(scaled)
        density = float(model.score(scaled)) - latents.shape[1] * float(np.log(scale))
        found = zip(model.means_, model.covariances_, strict=True)
        gaussians = tuple(_component(centre + scale * mean, scale, part) for mean, part in found)
    return FittedMixture(Mixture(model.weights_, gaussians), len(rows), density, bool(model.converged_))


def _component(mean: Array, scale: float, covariance: Array) -> Gaussian:
    if covariance.ndim == 1:
        return Gaussian(mean, scale * np.sqrt(covariance), float(covariance.min() / covariance.max()))
    values, vectors = np.linalg.eigh(covariance)
    root = scale * (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    return Gaussian(mean, root, float(max(values[0], 0.0) / values[-1]))


def truncated(draws: Array, centre: Array, psi: Sequence[float]) -> Array:
    """w̄ + ψ(w − w̄) of draws (n, d) for every ψ: (n, frames, d). ψ = 1 gives the draw exactly."""
    scales = np.asarray(psi, np.float64)[:, None]
    pulled = centre + scales * (draws - centre)[:, None, :]
    return np.where(scales == 1, draws[:, None, :], pulled)
