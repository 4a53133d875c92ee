"""How odd one image is: typicality, Mahalanobis distance and reconstruction error, and the greatest of them on one scale.

Each is put on the dataset's own scale, (x − median)/(1.4826 · MAD), so that `anomaly > 3` means the same for every codec:
three deviations of the bulk. A norm may be odd both ways, so for typicality the size counts; the others only upwards.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.diagnosis.norms import typicality

Floats = npt.NDArray[np.float64]
MAD_TO_STD = 1.4826


@dataclass(frozen=True)
class Scale:
    """Median and robust deviation of a score over the dataset's sample. A deviation of 0 puts every row at 0."""

    median: float
    deviation: float

    @classmethod
    def of(cls, values: Floats) -> "Scale":
        median = float(np.median(values))
        return cls(median, MAD_TO_STD * float(np.median(np.abs(values - median))))

    def place(self, values: Floats) -> Floats:
        if not self.deviation > 1e-9 * max(abs(self.median), 1e-300):
            return np.zeros(len(values))
        return (values - self.median) / self.deviation


@dataclass(frozen=True)
class Gaussian:
    """A Gaussian as a product that whitens: rows (z − mean) @ whiten (d, d) have identity covariance.

    Directions without variance are left out, and `rank` is what remains: Mahalanobis² is about χ² with `rank` degrees.
    """

    mean: Floats
    whiten: Floats
    rank: int

    @classmethod
    def of(cls, mean: Floats, covariance: Floats, n: int) -> "Gaussian":
        """From a mean and a covariance estimated from `n` rows, which has at most n − 1 directions."""
        values, vectors = np.linalg.eigh(covariance)
        largest = max(float(values[-1]), 0.0)
        kept = values > max(largest * 1e-10, 1e-300)
        kept[: max(len(values) - max(n - 1, 0), 0)] = False
        return cls(mean, vectors[:, kept] / np.sqrt(values[kept]), int(kept.sum()))

    def squared_distance(self, z: Floats) -> Floats:
        """Mahalanobis² of rows (n, d): (n,)."""
        white = (z - self.mean) @ self.whiten
        return np.asarray(np.einsum("ij,ij->i", white, white))


@dataclass(frozen=True)
class Scores:
    """Scores of rows from their latents. Picklable, bounded by d²."""

    dim: int
    gaussian: Gaussian
    typicality_scale: Scale
    mahalanobis_scale: Scale

    @classmethod
    def fitted(cls, sample: Floats, gaussian: Gaussian) -> "Scores":
        dim = sample.shape[1]
        norms = typicality(np.einsum("ij,ij->i", sample, sample), dim)
        return cls(dim, gaussian, Scale.of(norms), Scale.of(gaussian.squared_distance(sample)))

    def __call__(self, z: Floats) -> tuple[Floats, Floats, Floats]:
        """(n, d) → typicality, Mahalanobis², and the greater of both on the dataset's scale: three (n,)."""
        norms = typicality(np.einsum("ij,ij->i", z, z), self.dim)
        distance = self.gaussian.squared_distance(z)
        return (
            norms,
            distance,
            np.maximum(np.abs(self.typicality_scale.place(norms)), self.mahalanobis_scale.place(distance)),
        )


def chi_square_share(distances: Floats, rank: int, z: float = 3.0) -> float:
    """Share of Mahalanobis² whose (m² − d)/√(2d) is above `z`: .00135 for a Gaussian of many dimensions, and z = 3."""
    return float((distances > rank + z * math.sqrt(2 * rank)).mean()) if rank else 0.0
