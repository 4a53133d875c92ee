"""One pass for the mean and standard deviation of every latent coordinate: what `sigma` strengths of a coordinate mean."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from stages.code_sets.traverse import CoordinateMoments
from stages.columns import matrix_of
from stages.moments import Moments


@dataclass(frozen=True)
class CoordinateSpread:
    """A reduce stage over batches with `latent` of `dim` numbers. Rows that are not finite are left out."""

    dim: int

    def start(self) -> Moments:
        return Moments.empty(self.dim, full=False)

    def add(self, state: Moments, batch: pa.RecordBatch) -> Moments:
        latents = matrix_of(batch.column("latent"))
        state.absorb(Moments.of(latents[np.isfinite(latents).all(axis=1)], full=False))
        return state

    def merge(self, a: Moments, b: Moments) -> Moments:
        return a.merged(b)


def coordinate_moments(state: Moments) -> CoordinateMoments:
    """Mean and standard deviation (divided by n − 1) per coordinate, each (d,)."""
    return CoordinateMoments(mean=state.z_mean, std=np.sqrt(state.z_variance))
