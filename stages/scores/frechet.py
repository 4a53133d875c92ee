"""Fréchet distance of two Gaussians (Heusel et al. 2017): FID when the rows are features of pictures, latent FID when latents.

‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½), from mergeable moments, so no row is kept. The trace of the root is the sum of
square roots of the eigenvalues of Σ₁^½ Σ₂ Σ₁^½, which is symmetric: no complex roots appear and none are thrown away.
Of n rows of one distribution it is not 0 but falls as 1/n (Chong and Forsyth 2020): compare only equal n, and say n.
"""

from dataclasses import dataclass

import numpy as np

from stages.moments import Floats, Moments


@dataclass(frozen=True, eq=False)
class Root:
    """One side of many distances, with Σ^½ made once."""

    moments: Moments
    root: Floats

    @classmethod
    def of(cls, moments: Moments) -> "Root":
        """Needs full second moments of at least two rows; ValueError otherwise."""
        return cls(moments, _root(_covariance(moments)))

    def distance(self, other: Moments) -> float:
        """≥ 0, in squared units of the rows. Needs of `other` what `of` does."""
        a, b, d = self.moments, other, self.moments.dim
        # The difference of two means in two parts: digits survive when both lie far from zero.
        shift = ((a.origin - b.origin) + (a.offset - b.offset))[:d]
        second = _covariance(b)
        shared = np.linalg.eigvalsh(self.root @ second @ self.root)
        overlap = np.sqrt(np.maximum(shared, 0)).sum()
        return float(max(shift @ shift + np.trace(_covariance(a)) + np.trace(second) - 2 * overlap, 0.0))


def frechet_distance(a: Moments, b: Moments) -> float:
    """≥ 0, in squared units of the rows. Needs full second moments of at least two rows each; ValueError otherwise."""
    return Root.of(a).distance(b)


def _covariance(moments: Moments) -> Floats:
    if moments.n < 2 or moments.zz.ndim != 2:
        raise ValueError(f"{moments.n} rows; a covariance needs at least 2, and full second moments")
    return np.asarray(moments.zz / (moments.n - 1))


def _root(covariance: Floats) -> Floats:
    """The symmetric square root; eigenvalues that rounding made negative are 0."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T)
