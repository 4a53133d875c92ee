"""How odd one image is: typicality, Mahalanobis distance and reconstruction error, and the greatest of them on one scale.

Each is put on the dataset's own scale, (x − median)/(1.4826 · MAD), so that `anomaly > 3` means the same for every codec:
three deviations of the bulk. A norm may be odd both ways, so for typicality the size counts; the others only upwards.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.diagnosis.norms import NormHistogram, typicality

Floats = npt.NDArray[np.float64]
MAD_TO_STD = 1.4826


def score_names(chosen: Sequence[str]) -> tuple[str, ...]:
    """The columns that are written when these scores of a diagnose step are chosen: one each and `anomaly`, or none."""
    columns = {"typicality": TYPICALITY, "mahalanobis": MAHALANOBIS, "reconstruction": RECONSTRUCTION}
    return (*(columns[name] for name in chosen), ANOMALY) if chosen else ()


@dataclass(frozen=True)
class Scale:
    """Median and robust deviation of a score over the dataset's sample. A deviation of 0 puts every row at 0."""

    median: float
    deviation: float

    @classmethod
    def of(cls, values: Floats) -> "Scale":
        median = float(np.median(values))
        return cls(median, MAD_TO_STD * float(np.median(np.abs(values - median))))

    @classmethod
    def of_histogram(cls, histogram: NormHistogram) -> "Scale":
        """The same of numbers that were counted as norms, to the width of a bin."""
        centres = histogram.centres
        held = np.flatnonzero(histogram.counts)
        median = histogram.quantile(0.5)
        away = np.abs(centres[held] - median)
        order = np.argsort(away)
        half = np.searchsorted(np.cumsum(histogram.counts[held][order]), histogram.n / 2)
        return cls(median, MAD_TO_STD * float(away[order][half]))

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


TYPICALITY, MAHALANOBIS, RECONSTRUCTION = "typicality", "mahalanobis", "reconstruction_error"
ANOMALY = "anomaly"


@dataclass(frozen=True)
class Scores:
    """Scores of rows from their latents (and reconstruction errors). Picklable, bounded by d². `scales`: of what is scored."""

    dim: int
    gaussian: Gaussian
    scales: Mapping[str, Scale]

    @classmethod
    def fitted(
        cls, sample: Floats, gaussian: Gaussian, names: Sequence[str], *, reconstruction: Scale | None = None
    ) -> "Scores":
        """Scales from latents (n, d) of a sample; `names` among TYPICALITY, MAHALANOBIS."""
        dim = sample.shape[1]
        values = {
            TYPICALITY: lambda: typicality(np.einsum("ij,ij->i", sample, sample), dim),
            MAHALANOBIS: lambda: gaussian.squared_distance(sample),
        }
        scales = {name: Scale.of(values[name]()) for name in names}
        return cls(dim, gaussian, scales | ({RECONSTRUCTION: reconstruction} if reconstruction else {}))

    def of(self, z: Floats, reconstruction: Floats | None = None) -> dict[str, Floats]:
        """Rows (n, d) → every score and ANOMALY, (n,) each. A reconstruction error that is NaN is left out of its row's."""
        found: dict[str, Floats] = {}
        if TYPICALITY in self.scales:
            found[TYPICALITY] = typicality(np.einsum("ij,ij->i", z, z), self.dim)
        if MAHALANOBIS in self.scales:
            found[MAHALANOBIS] = self.gaussian.squared_distance(z)
        if RECONSTRUCTION in self.scales and reconstruction is not None:
            found[RECONSTRUCTION] = reconstruction
        placed = [
            np.abs(self.scales[name].place(x)) if name == TYPICALITY else self.scales[name].place(x)
            for name, x in found.items()
        ]
        # fmax: the other scores stand where one is missing.
        return found | {ANOMALY: np.fmax.reduce(placed)}


def chi_square_share(distances: Floats, rank: int, z: float = 3.0) -> float:
    """Share of Mahalanobis² whose (m² − d)/√(2d) is above `z`: .00135 for a Gaussian of many dimensions, and z = 3."""
    return float((distances > rank + z * math.sqrt(2 * rank)).mean()) if rank else 0.0
