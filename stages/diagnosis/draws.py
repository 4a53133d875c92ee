"""Seeded normal draws for whole blocks of rows: the same row and coordinate give the same draw in any batch and order."""

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from stages.diagnosis.code_sample import SampledCodes
from stages.row_hash import Hashes, fractions

Floats = npt.NDArray[np.float64]


def normals(hashes: Hashes, dim: int, *, salt: str) -> Floats:
    """(rows, dim) draws of N(0, 1), by inversion of numbers fixed by each row's hash."""
    drawn = np.empty((len(hashes), dim))
    for j in range(dim):
        # Half a step up: 0 would be minus infinity.
        drawn[:, j] = ndtri(fractions(hashes, f"{salt}/{j}") + 2.0**-54)
    return drawn


def aggregate_draws(sample: SampledCodes) -> Floats:
    """One draw from each row's posterior, (rows, d): codes of the aggregate posterior. The latents where no width is stored."""
    means = sample.latents.astype(np.float64)
    if sample.logvars is None:
        return means
    widths = np.exp(0.5 * sample.logvars.astype(np.float64))
    return np.asarray(means + widths * normals(sample.hashes, means.shape[1], salt="posterior draw"))
