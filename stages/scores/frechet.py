"""Fréchet distance of two Gaussians (Heusel et al. 2017): FID when the rows are features of pictures, latent FID when latents.

‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½), from mergeable moments, so no row is kept. The trace of the root is the sum of
square roots of the eigenvalues of Σ₁^½ Σ₂ Σ₁^½, which is symmetric: no complex roots appear and none are thrown away.
Of n rows of one distribution it is not 0 but falls as 1/n (Chong and Forsyth 2020): compare only equal n, and say n.
"""

import numpy as np

from stages.moments import Floats, Moments


def frechet_distance(a: Moments, b: Moments) -> float:
    """≥ 0, in squared units of the rows. Needs full second moments of at least two rows each; ValueError otherwise."""
    for one in (a, b):
        if one.n < 2 or one.zz.ndim != 2:
            raise ValueError(f"{one.n} rows; a covariance needs at least 2, and full second moments")
    # The difference of two means in two parts: digits survive when both lie far from zero.
    shift = ((a.origin - b.origin) + (a.offset - b.offset))[: a.dim]
    first, second = a.zz / (a.n - 1), b.zz / (b.n - 1)
    return float(gaussian_distance(shift, first, root(first), second))


def gaussian_distance(shift: Floats, first: Floats, first_root: Floats, second: Floats) -> Floats:
    """Of means `shift` (…, d) apart and covariances (…, d, d), the first with its root: many at once."""
    shared = np.linalg.eigvalsh(first_root @ second @ first_root)
    overlap = np.sqrt(np.maximum(shared, 0)).sum(axis=-1)
    spread = np.trace(first, axis1=-2, axis2=-1) + np.trace(second, axis1=-2, axis2=-1)
    return np.asarray(np.maximum((shift**2).sum(axis=-1) + spread - 2 * overlap, 0.0))


def root(covariance: Floats) -> Floats:
    """The symmetric square root of (…, d, d); eigenvalues that rounding made negative are 0."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0))[..., None, :]) @ np.swapaxes(vectors, -1, -2))
