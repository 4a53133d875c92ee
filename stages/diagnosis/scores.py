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
from stages.row_hash import Hashes

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
MAD_TO_STD = 1.4826
SPARE = 4
"""Rows more than directions that an estimate needs for a row to be left out of it."""


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
    """A Gaussian as a product that whitens: rows (z − mean) @ whiten (d, rank) have identity covariance; (d,) a factor each.

    Directions without variance are left out, and `rank` is what remains: Mahalanobis² is about χ² with `rank` degrees. `n`: the
    rows it was estimated from, for which distances are made up; None where there are so many that it does not matter.
    """

    mean: Floats
    whiten: Floats
    rank: int
    n: int | None = None

    @classmethod
    def of(cls, mean: Floats, covariance: Floats, n: int) -> "Gaussian":
        """From a mean and a covariance estimated from `n` rows, which has at most n − 1 directions."""
        values, vectors = np.linalg.eigh(covariance)
        largest = max(float(values[-1]), 0.0)
        kept = values > max(largest * 1e-10, 1e-300)
        kept[: max(len(values) - max(n - 1, 0), 0)] = False
        return cls(mean, vectors[:, kept] / np.sqrt(values[kept]), int(kept.sum()), n)

    @classmethod
    def independent(cls, mean: Floats, variances: Floats) -> "Gaussian":
        """With independent coordinates, from the variances (d,) of very many rows."""
        kept = variances > max(float(variances.max()) * 1e-10, 1e-300)
        return cls(mean, np.where(kept, 1 / np.sqrt(np.where(kept, variances, 1.0)), 0.0), int(kept.sum()))

    def squared_distance(self, z: Floats, *, among: Bools | None = None) -> Floats:
        """Mahalanobis² of rows (m, d): (m,), of mean `rank` for rows of a Gaussian. `among` (m,): rows it was estimated from.

        An estimated covariance puts its own rows nearer than they are, and others further away by n/(n − rank): a third at
        4 rows a coordinate, which is seven deviations of χ² at d = 1,024. So a row of the estimate is judged as if it had
        been left out (Sherman and Morrison 1950), and both are divided by their mean for a Gaussian (Hotelling's T²).
        """
        white = (z - self.mean) * self.whiten if self.whiten.ndim == 1 else (z - self.mean) @ self.whiten
        found = np.asarray(np.einsum("ij,ij->i", white, white))
        if self.n is None or self.n < self.rank + SPARE:
            return found
        unseen = found / _expected(self.n, self.rank)
        if among is None or not among.any():
            return unseen
        n = self.n
        leverage = found / (n - 1)
        left = (n - 2) * (n / (n - 1)) ** 2 * leverage / np.maximum(1 - leverage * n / (n - 1), 1e-12)
        return np.where(among, left / _expected(n - 1, self.rank), unseen)

    @property
    def deviation(self) -> float:
        """Of squared distances, for rows of a Gaussian: √(2·rank), and more with few rows (Snedecor's F instead of χ²)."""
        if self.n is None or self.n < self.rank + SPARE:
            return math.sqrt(2 * self.rank)
        return math.sqrt(2 * self.rank * self.n / (self.n - self.rank))


def _expected(n: int, rank: int) -> float:
    """Mean of Mahalanobis² ÷ rank of a row that is not among the n the Gaussian was estimated from."""
    return (n - 1) * (n + 1) / (n * (n - rank - 2))


TYPICALITY, MAHALANOBIS, RECONSTRUCTION = "typicality", "mahalanobis", "reconstruction_error"
ANOMALY = "anomaly"


@dataclass(frozen=True)
class Scores:
    """Scores of rows from their latents (and reconstruction errors). Picklable, bounded by d² and the sample.

    `scales`: of what is scored. `sampled`: hashes of the rows that the Gaussian was estimated from.
    """

    dim: int
    gaussian: Gaussian
    scales: Mapping[str, Scale]
    sampled: Hashes

    @classmethod
    def fitted(
        cls,
        sample: Floats,
        hashes: Hashes,
        gaussian: Gaussian,
        names: Sequence[str],
        *,
        reconstruction: Scale | None = None,
    ) -> "Scores":
        """Scales from latents (n, d) of a sample and its rows' hashes (n,); `names` among TYPICALITY, MAHALANOBIS."""
        dim = sample.shape[1]
        values = {
            TYPICALITY: lambda: typicality(np.einsum("ij,ij->i", sample, sample), dim),
            MAHALANOBIS: lambda: gaussian.squared_distance(sample, among=np.ones(len(sample), np.bool_)),
        }
        scales = {name: Scale.of(values[name]()) for name in names}
        return cls(dim, gaussian, scales | ({RECONSTRUCTION: reconstruction} if reconstruction else {}), hashes)

    def of(self, z: Floats, hashes: Hashes, reconstruction: Floats | None = None) -> dict[str, Floats]:
        """Rows (n, d) and their hashes (n,) → every score and ANOMALY, (n,) each.

        A reconstruction error that is NaN is left out of its row's.
        """
        found: dict[str, Floats] = {}
        if TYPICALITY in self.scales:
            found[TYPICALITY] = typicality(np.einsum("ij,ij->i", z, z), self.dim)
        if MAHALANOBIS in self.scales:
            found[MAHALANOBIS] = self.gaussian.squared_distance(z, among=np.isin(hashes, self.sampled))
        if RECONSTRUCTION in self.scales and reconstruction is not None:
            found[RECONSTRUCTION] = reconstruction
        placed = [
            np.abs(self.scales[name].place(x)) if name == TYPICALITY else self.scales[name].place(x)
            for name, x in found.items()
        ]
        # fmax: the other scores stand where one is missing.
        return found | {ANOMALY: np.fmax.reduce(placed)}


def tail_share(distances: Floats, gaussian: Gaussian, z: float = 3.0) -> float:
    """Share of Mahalanobis² more than `z` deviations above its mean: .00135 for a Gaussian of many dimensions, and z = 3."""
    return float((distances > gaussian.rank + z * gaussian.deviation).mean()) if gaussian.rank else 0.0
